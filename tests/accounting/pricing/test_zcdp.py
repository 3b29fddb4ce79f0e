"""Mechanisms of which nothing is known but ρ."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from dpacc_accounting import (
    ZCDP,
    Adjacency,
    Composed,
    Gaussian,
    Mixture,
    PoissonSampled,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
    without_amplification,
)

HALF = ZCDP(rho=0.5)


@pytest.mark.parametrize("adjacency", Adjacency)
def test_a_gaussian_of_its_rho_costs_no_more(adjacency: Adjacency) -> None:
    """ρ = s²/(2σ²) is exact of a Gaussian: the lower bound is its ε, the upper one above."""
    sigma = (2 if adjacency is Adjacency.REPLACE_ONE else 1) / math.sqrt(2 * 0.5)
    found = epsilon(event=HALF, delta=1e-5, adjacency=adjacency)
    exact = epsilon(event=Gaussian(noise_multiplier=sigma), delta=1e-5, adjacency=adjacency)
    assert found.method == "rdp"
    assert found.epsilon - found.slack == pytest.approx(exact.epsilon, rel=1e-9)
    assert exact.epsilon < found.epsilon < 1.1 * exact.epsilon
    at = delta(event=HALF, epsilon=3.0, adjacency=adjacency).delta
    assert (
        at > delta(event=Gaussian(noise_multiplier=sigma), epsilon=3.0, adjacency=adjacency).delta
    )


@pytest.mark.parametrize("xi", [0.0, 0.3])
def test_it_is_dp_accountings(xi: float) -> None:
    """Its Rényi accountant, over more orders, arrives at the same ε."""
    orders = [1 + x / 50 for x in range(1, 3000)]
    theirs = RdpAccountant(orders).compose(dp_accounting.dp_event.ZCDpEvent(0.02, xi), 5)
    many = Repeated(event=ZCDP(rho=0.02, xi=xi), times=5)
    assert epsilon(event=many, delta=1e-5).epsilon == pytest.approx(
        theirs.get_epsilon(1e-5), rel=1e-3
    )


def test_it_adds_up() -> None:
    """ρ is additive, and beside sampled Gaussians Rényi divergences are."""
    split = Repeated(event=ZCDP(rho=0.05), times=10)
    assert epsilon(event=split, delta=1e-5).epsilon == pytest.approx(
        epsilon(event=HALF, delta=1e-5).epsilon, rel=1e-9
    )
    step = PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.0))
    both = epsilon(event=Composed(events=(HALF, step)), delta=1e-5)
    assert epsilon(event=HALF, delta=1e-5).epsilon < both.epsilon < math.inf
    assert both.epsilon - both.slack > 0


def test_nothing_is_claimed_for_a_sample_of_it() -> None:
    """Sampling does not amplify ρ: refused in one line, and priced without amplification."""
    for sampled, adjacency in (
        (PoissonSampled(probability=0.1, event=HALF), Adjacency.ADD_OR_REMOVE),
        (
            SampledWithoutReplacement(sample_size=1, dataset_size=9, event=HALF),
            Adjacency.REPLACE_ONE,
        ),
    ):
        with pytest.raises(ValueError, match=r"price without_amplification\(event=...\)"):
            epsilon(event=sampled, delta=1e-5, adjacency=adjacency)
        whole = without_amplification(event=sampled)
        assert whole == HALF


def test_coins_and_searches_around_it_are_priced() -> None:
    """By Rényi divergence, as everything that holds it."""
    half = Mixture(weights=(0.5, 0.5), events=(HALF, Composed(events=())))
    search = Selected(event=HALF, mean_runs=3, shape=1)
    whole = epsilon(event=HALF, delta=1e-5).epsilon
    assert epsilon(event=half, delta=1e-5).epsilon < whole
    found = epsilon(event=search, delta=1e-5)
    assert found.method == "rdp"
    assert whole < found.epsilon < 4 * whole


@pytest.mark.parametrize("rho", [0.0, 1e-300, 1e300])
def test_extreme_rho_has_a_price(rho: float) -> None:
    """From nothing to everything."""
    found = epsilon(event=ZCDP(rho=rho), delta=1e-5)
    assert 0 <= found.slack <= found.epsilon
    assert (found.epsilon < 0.01) == (rho < 1)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "x", None])
def test_what_is_no_divergence_is_refused(value: object) -> None:
    """Either number, by name."""
    with pytest.raises(ValueError, match="rho"):
        ZCDP(rho=value)
    with pytest.raises(ValueError, match="xi"):
        ZCDP(rho=1.0, xi=value)


def test_documents() -> None:
    """ξ is written where there is one."""
    assert event_to_json(event=HALF) == {"event": "zcdp", "rho": 0.5}
    for event in (HALF, ZCDP(rho=0.5, xi=0.25)):
        assert event_from_json(document=event_to_json(event=event)) == event
