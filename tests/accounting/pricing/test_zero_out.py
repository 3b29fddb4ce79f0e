"""Neighbours of one size, one unit of which is a null one that adds zero."""

import math
from itertools import combinations

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    MixtureOfGaussians,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    TruncatedPoissonSampled,
    calibrate_noise,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
    group_epsilon,
    price_federation,
    read_federation,
    without_amplification,
)
from dpacc_accounting.events.event import (
    AdaptivelyClipped,
    ApproximateDP,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Laplace,
    RandomizedResponse,
    Skellam,
)
from dpacc_accounting.events.finite_mechanisms import TruncatedDiscreteGaussian
from dpacc_accounting.gaussian import gaussian_delta
from dpacc_accounting.ledger.statement import statement

ZEROED, REMOVED = Adjacency.ZERO_OUT, Adjacency.ADD_OR_REMOVE
NOISY = Gaussian(noise_multiplier=1.0)
SUMS = [
    NOISY,
    PoissonSampled(probability=0.01, event=NOISY),
    PoissonSampled(probability=0.1, event=AdaptivelyClipped(noise_multiplier=1.0, count_noise=5.0)),
    Laplace(noise_multiplier=1.0),
    DiscreteLaplace(decay=0.5, sensitivity=2),
    Skellam(variance=9.0, sensitivity=2),
    PoissonSampled(probability=0.1, event=DiscreteGaussian(sigma=2.0, sensitivity=2)),
    PoissonSampled(probability=0.1, event=Laplace(noise_multiplier=1.0)),
    RandomlyAllocated(steps=20, event=NOISY),
    PoissonSampled(
        probability=0.1,
        event=MixtureOfGaussians(
            noise_multiplier=2.0, weights=(0.5, 0.3, 0.2), sensitivities=(0.0, 1.0, 2.0)
        ),
    ),
    PoissonSampled(
        probability=0.1, event=TruncatedDiscreteGaussian(sigma=2.0, sensitivity=1, bound=30)
    ),
]


@pytest.mark.parametrize("event", SUMS, ids=lambda event: str(event)[:40])
def test_sums_cost_what_they_cost_when_a_unit_is_removed(event: Event) -> None:
    """A null unit adds nothing to a sum, drawn or not: the laws are those of add-or-remove."""
    many = Repeated(event=event, times=3)
    removed, found = (epsilon(event=many, delta=1e-5, adjacency=a) for a in (REMOVED, ZEROED))
    assert (found.epsilon, found.slack) == (removed.epsilon, removed.slack)
    assert found.adjacency is ZEROED


@pytest.mark.parametrize("event", SUMS[:6], ids=lambda event: str(event)[:40])
def test_their_divergences_are_those_of_a_removed_unit(event: Event) -> None:
    """So it is by Rényi divergences."""
    removed, found = (
        epsilon(event=event, delta=1e-5, adjacency=a, method="rdp") for a in (REMOVED, ZEROED)
    )
    assert found.epsilon == removed.epsilon


def discrete_gaussian(mean: int, sigma: float) -> np.ndarray:
    k = np.arange(-40, 41)
    chances = np.exp(-((k - mean) ** 2) / (2 * sigma**2))
    return np.asarray(chances / chances.sum())


def outputs(data: list[int], batch: int, sigma: float) -> np.ndarray:
    """The exact law of a noised sum of a batch drawn without replacement."""
    drawn = [*combinations(data, batch)]
    return np.asarray(
        np.sum([discrete_gaussian(sum(some), sigma) for some in drawn], axis=0) / len(drawn)
    )


@pytest.mark.parametrize("at", [0.0, 0.3, 1.0, 2.0])
def test_batches_of_fixed_size_are_never_priced_below_an_enumeration(at: float) -> None:
    """Of N = 3 integers in −2..2, B = 2 are drawn: for all data, both ways, δ is covered."""
    sigma, worst = 1.5, 0.0
    values = range(-2, 3)
    for first in values:
        for second in values:
            null = outputs([first, second, 0], 2, sigma)
            for unit in (-2, 2):
                real = outputs([first, second, unit], 2, sigma)
                for p, q in ((real, null), (null, real)):
                    worst = max(worst, float(np.maximum(p - math.exp(at) * q, 0).sum()))
    event = SampledWithoutReplacement(
        sample_size=2, dataset_size=3, event=DiscreteGaussian(sigma=sigma, sensitivity=2)
    )
    found = delta(event=event, epsilon=at, adjacency=ZEROED).delta
    assert worst <= found * (1 + 1e-9)
    # As if everyone saw who was in the batch, and no more than that.
    whole = delta(event=event.event, epsilon=at, adjacency=ZEROED).delta
    assert found == pytest.approx(whole * 2 / 3, rel=1e-2)


def test_one_batch_of_fixed_size_costs_its_share_of_one_contribution() -> None:
    """δ(ε) = B/N · δ of N(1/σ, 1) against N(0, 1): not of the 2C by which a replaced unit moves."""
    event = SampledWithoutReplacement(sample_size=25, dataset_size=100, event=NOISY)
    exact = gaussian_delta(mu=1.0, epsilon=1.0) / 4
    found = delta(event=event, epsilon=1.0, adjacency=ZEROED).delta
    assert exact * (1 - 1e-9) <= found <= exact * 1.01


def test_a_null_unit_may_tell_what_an_absent_one_does_not() -> None:
    """A mechanism known by ε alone is not amplified by a coin, which a null unit may reveal."""
    known = ApproximateDP(epsilon=2.0, delta=0.0)
    for event in (
        PoissonSampled(probability=0.1, event=known),
        SampledWithoutReplacement(sample_size=1, dataset_size=10, event=known),
    ):
        found = epsilon(event=event, delta=1e-9, adjacency=ZEROED).epsilon
        assert found == pytest.approx(2.0, abs=1e-3)


def cut(largest: int) -> TruncatedPoissonSampled:
    return TruncatedPoissonSampled(
        probability=0.1, largest_batch=largest, dataset_size=100, event=NOISY
    )


@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_a_batch_that_may_be_full_is_refused_with_a_remedy_that_works(method: str) -> None:
    """There a null unit takes another's place; with room for all it is a Poisson sample."""
    with pytest.raises(ValueError, match="ADD_OR_REMOVE") as refused:
        epsilon(event=cut(12), delta=1e-5, adjacency=ZEROED, method=method)
    assert "\n" not in str(refused.value)
    bare = without_amplification(event=cut(12))
    assert math.isfinite(epsilon(event=bare, delta=1e-5, adjacency=ZEROED, method=method).epsilon)
    poisson = PoissonSampled(probability=0.1, event=NOISY)
    roomy = epsilon(event=cut(100), delta=1e-5, adjacency=ZEROED, method=method)
    assert roomy == epsilon(event=poisson, delta=1e-5, adjacency=ZEROED, method=method)


def test_a_units_own_answer_is_refused() -> None:
    """A null unit answers too, and nobody knows how."""
    with pytest.raises(ValueError, match="REPLACE_ONE"):
        epsilon(event=RandomizedResponse(noise=0.5, options=3), delta=1e-5, adjacency=ZEROED)


def test_groups_and_calibration_are_those_of_add_or_remove() -> None:
    """k null units add as little as k absent ones, and the same noise is needed."""
    event = Repeated(event=PoissonSampled(probability=0.05, event=NOISY), times=10)
    removed = group_epsilon(event=event, size=2, delta=1e-5)
    assert group_epsilon(event=event, size=2, delta=1e-5, adjacency=ZEROED).epsilon == (
        removed.epsilon
    )
    removed_noise, found = (
        calibrate_noise(
            dataset_size=10_000, batch_size=100, steps=50, epsilon=2.0, delta=1e-5, adjacency=a
        )
        for a in (REMOVED, ZEROED)
    )
    assert found.noise_multiplier == removed_noise.noise_multiplier
    assert found.guarantee.adjacency is ZEROED


def test_cohorts_of_a_fixed_size_are_priced() -> None:
    """Ten of a hundred clients, one of whom may send zeros, cost less than all of them."""
    document = {"level": "client", "adjacency": "zero-out", "delta": 1e-5, "rounds": 5}
    document |= {"noise_multiplier": 1.0, "sampling": "fixed-size"}
    document |= {"population": 100, "cohort_size": 10}
    (found,) = price_federation(federation=read_federation(document=document)).prices
    bare = epsilon(event=Repeated(event=NOISY, times=5), delta=1e-5, adjacency=ZEROED)
    assert found.released.adjacency is ZEROED
    assert 0 < found.released.epsilon < bare.epsilon


def test_a_statement_says_what_a_null_unit_is() -> None:
    """The words name the null unit, and do not hide a size that both datasets have."""
    plan = {
        "dataset_size": 1000,
        "expected_batch_size": 100,
        "steps": 50,
        "max_grad_norm": 1.0,
        "noise_multiplier": 1.0,
        "target_delta": 1e-5,
        "unit": "example",
        "adjacency": "zero-out",
        "sampling": "poisson",
        "clipping": "flat",
    }
    text = statement(plan=plan)
    assert "replacing one example by a null one" in text
    assert "All have N = 1000 examples." in text


def test_its_name_survives_a_document() -> None:
    """A guarantee and its event read back as they were."""
    event = SampledWithoutReplacement(sample_size=2, dataset_size=3, event=NOISY)
    stated = epsilon(event=event, delta=1e-5, adjacency=Adjacency("zero-out")).to_json()
    assert Adjacency(stated["adjacency"]) is ZEROED
    again = event_from_json(document=event_to_json(event=event))
    assert epsilon(event=again, delta=1e-5, adjacency=ZEROED).epsilon == stated["epsilon"]
