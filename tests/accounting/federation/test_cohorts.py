"""Cohorts of a fixed size, drawn without replacement, are priced as what they are."""

import pytest
from dpacc_accounting import (
    Adjacency,
    FederatedGuarantee,
    Gaussian,
    Repeated,
    SampledWithoutReplacement,
    epsilon,
    price_federation,
    read_federation,
)
from dpacc_accounting.federation.fields import FieldError

FIXED = {
    "level": "client",
    "delta": 1e-6,
    "adjacency": "replace-one",
    "sampling": "fixed-size",
    "population": 400,
    "cohort_size": 20,
    "rounds": 60,
    "noise_multiplier": 1.5,
}


def price(**changes: object) -> FederatedGuarantee:
    """What the federation costs."""
    return price_federation(federation=read_federation(document=FIXED | changes))


def test_the_released_models_are_amplified_by_the_draw() -> None:
    """Central noise: 60 rounds of 20 out of 400 clients, and nothing against the server."""
    noise = Gaussian(noise_multiplier=1.5)
    once = SampledWithoutReplacement(sample_size=20, dataset_size=400, event=noise)
    where = Adjacency.REPLACE_ONE
    exact = epsilon(event=Repeated(event=once, times=60), delta=1e-6, adjacency=where)
    (found,) = price().prices
    assert found.released.epsilon == exact.epsilon
    assert found.server.epsilon == float("inf")
    (unsampled,) = price(sampling="none").prices
    assert found.released.epsilon < unsampled.released.epsilon / 3


def test_the_assumption_is_the_draw_and_not_a_coin() -> None:
    """The report says that each round draws its cohort afresh."""
    words = " ".join(price().assumptions)
    assert "afresh" in words
    assert "own coin" not in words


def test_a_schedule_may_change_the_size_of_its_cohorts() -> None:
    """Larger cohorts in some rounds cost more; a cohort of everybody is no sample."""
    parts = [{"rounds": 30}, {"rounds": 30, "cohort_size": 40}]
    (mixed,) = price(schedule=parts).prices
    (small,) = price().prices
    assert mixed.released.epsilon > small.released.epsilon
    (whole,) = price(cohort_size=400).prices
    (unsampled,) = price(sampling="none").prices
    assert whole.released == unsampled.released


@pytest.mark.parametrize("noise", ["distributed-gaussian", "skellam"])
def test_the_server_of_a_secure_aggregation_learns_the_cohort(noise: str) -> None:
    """Its view is not amplified; integer noise claims no amplification in either."""
    secure = {"clients": 20, "threshold": 16}
    grid = {"dimension": 100, "granularity": 0.001}
    more = {"discretization": grid} if noise == "skellam" else {}
    (found,) = price(noise=noise, secure_aggregation=secure, **more).prices
    assert found.server.epsilon < float("inf")
    amplified = found.released.epsilon < found.server.epsilon
    assert amplified == (noise == "distributed-gaussian")


def test_a_cap_on_rounds_is_priced_unsampled() -> None:
    """Who takes part at most twice is counted in two rounds, in full."""
    (found,) = price(most_rounds=2).prices
    two = Repeated(event=Gaussian(noise_multiplier=1.5), times=2)
    where = Adjacency.REPLACE_ONE
    assert found.released.epsilon == epsilon(event=two, delta=1e-6, adjacency=where).epsilon


CORRELATED = {
    "level": "client",
    "delta": 1e-6,
    "sampling": "none",
    "rounds": 50,
    "noise_multiplier": 2.0,
    "correlated": {"min_separation": 10, "coefficients": [0.8, 0.6]},
}


def test_correlated_rounds_are_priced_by_turns() -> None:
    """Fifty rounds, ten apart: five Gaussians of σ = 2, with a column of norm 1; none: nothing."""
    once = Gaussian(noise_multiplier=2.0)
    exact = epsilon(event=Repeated(event=once, times=5), delta=1e-6, unit="client")
    found = price_federation(federation=read_federation(document=CORRELATED))
    assert found.prices[0].released.epsilon == pytest.approx(exact.epsilon, rel=1e-12)
    assert found.prices[0].server.epsilon == float("inf")
    assert "does so again before round t + 10" in " ".join(found.assumptions)
    parts = [{"rounds": 30}, {"rounds": 20}]
    split = price_federation(federation=read_federation(document=CORRELATED | {"schedule": parts}))
    assert split.prices == found.prices
    limited = price_federation(federation=read_federation(document=CORRELATED | {"most_rounds": 1}))
    assert limited.prices[0].released.epsilon < found.prices[0].released.epsilon / 2
    assert "more than 1 rounds" in " ".join(limited.assumptions)
    none = price_federation(federation=read_federation(document=CORRELATED | {"rounds": 0}))
    assert none.prices[0].released.epsilon == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sampling": "poisson", "sampling_rate": 0.1}, "correlated is for"),
        ({"correlated": {"min_separation": 0, "coefficients": [1.0]}}, "min_separation"),
        ({"correlated": {"min_separation": 2, "coefficients": [0.1, 0.9]}}, "cannot be priced"),
        ({"correlated": {"min_separation": 2, "coefficients": "c"}}, "list of numbers"),
        ({"correlated": {"min_separation": 2}}, "coefficients is missing"),
        (
            {"schedule": [{"rounds": 3}, {"rounds": 3, "noise_multiplier": 9.0}]},
            "one noise_multiplier",
        ),
    ],
)
def test_what_no_correlated_rounds_are_is_refused(changes: dict[str, object], named: str) -> None:
    """By the field."""
    with pytest.raises(FieldError, match=named):
        read_federation(document=CORRELATED | changes)
