"""Pure ε caps every price of an event that has one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    delta,
    epsilon,
)
from dpacc_accounting.pricing.outright_claims import Claim, outright_claim

ADD, REPLACE = Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE
ONCE = Laplace(noise_multiplier=1.0)
HALF = PoissonSampled(probability=0.5, event=ONCE)
# An event, its adjacency and its pure ε.
PURE: list[tuple[Event, Adjacency, float]] = [
    (ONCE, ADD, 1.0),
    (ONCE, REPLACE, 2.0),
    (Laplace(noise_multiplier=3.0), ADD, 1 / 3),
    (Repeated(event=ONCE, times=7), ADD, 7.0),
    (Composed(events=(ONCE, ExponentialMechanism(epsilon=0.5))), ADD, 1.5),
    (ExponentialMechanism(epsilon=2.0), REPLACE, 2.0),
    (HALF, ADD, math.log1p(0.5 * math.expm1(1.0))),
    (HALF, REPLACE, 2.0),
    (
        SampledWithoutReplacement(sample_size=1, dataset_size=4, event=ONCE),
        REPLACE,
        math.log1p(0.25 * math.expm1(2.0)),
    ),
    (Mixture(weights=(0.5, 0.5), events=(ONCE, Composed(events=()))), ADD, 1.0),
]


@pytest.mark.parametrize(("event", "adjacency", "largest"), PURE)
def test_nothing_is_lost_beyond_the_largest_loss(
    event: Event, adjacency: Adjacency, largest: float
) -> None:
    """δ is 0 at pure ε and beyond, above 0 below it; no δ needs more than pure ε."""
    found = outright_claim(event=event, adjacency=adjacency).epsilon
    assert largest * (1 - 1e-9) <= found <= largest * (1 + 1e-9)
    for beyond in (found, 1.5 * found):
        assert delta(event=event, epsilon=beyond, adjacency=adjacency).delta == 0
    assert delta(event=event, epsilon=0.9 * found, adjacency=adjacency).delta > 0
    for small in (1e-5, 1e-200):
        price = epsilon(event=event, delta=small, adjacency=adjacency)
        assert 0 <= price.slack <= price.epsilon <= found


@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_the_cap_holds_for_every_method(method: str) -> None:
    """Rényi's conversion alone would ask for more than the largest loss."""
    few = Repeated(event=Laplace(noise_multiplier=10.0), times=3)
    assert epsilon(event=few, delta=1e-12, method=method).epsilon <= 0.3 + 1e-15
    assert delta(event=few, epsilon=0.3 + 1e-15, method=method).delta == 0


def test_laplace_at_its_own_epsilon() -> None:
    """δ(1) of Laplace noise 1 is 0, and was 2.6e-5 by the grid alone."""
    assert delta(event=ONCE, epsilon=1.0).delta == 0.0


def test_gaussians_have_no_largest_loss() -> None:
    """Beside a Gaussian, or with one inside, no cap is claimed."""
    noisy = Gaussian(noise_multiplier=9.0)
    for event in (
        Composed(events=(ONCE, noisy)),
        PoissonSampled(probability=0.1, event=Composed(events=(ONCE, noisy))),
        Mixture(weights=(0.5, 0.5), events=(ONCE, noisy)),
        Selected(event=noisy, mean_runs=2, shape=1),
    ):
        assert outright_claim(event=event, adjacency=ADD).epsilon == math.inf
        assert delta(event=event, epsilon=8.0).delta > 0


@pytest.mark.parametrize(("mean", "most"), [(1, 1.0), (2, 2.0), (100, 3.0)])
def test_a_search_of_pure_runs_is_pure(mean: float, most: float) -> None:
    """(2 + η)·ε for many geometric runs (Papernot & Steinke 2022, corollary 3); less for few."""
    search = Selected(event=ONCE, mean_runs=mean, shape=1)
    found = outright_claim(event=search, adjacency=ADD).epsilon
    assert 0.8 * most <= found <= most * (1 + 1e-12)
    assert delta(event=search, epsilon=found).delta == 0


def test_a_mixture_of_what_cannot_happen_does_not_count() -> None:
    """A branch of weight 0 has no say."""
    never = Mixture(weights=(1.0, 0.0), events=(ONCE, Gaussian(noise_multiplier=0.0)))
    assert outright_claim(event=never, adjacency=ADD).epsilon == 1.0


def test_the_largest_loss_is_never_rounded_down() -> None:
    """10/3 as a sum of fractions is below the float that is returned."""
    ten = Repeated(event=Laplace(noise_multiplier=3.0), times=10)
    assert Fraction(outright_claim(event=ten, adjacency=ADD).epsilon) >= Fraction(10, 3)


def test_delta_and_epsilon_are_those_of_randomised_response() -> None:
    """Against the sum over the two outcomes, and each the other's inverse."""
    for largest in (0.1, 1.0, 5.0):
        truth = math.exp(largest) / (1 + math.exp(largest))
        for at in np.linspace(0, 1.2 * largest, 7):
            exact = max(truth - math.exp(at) * (1 - truth), 0.0)
            found = Claim(largest).delta_at(epsilon=float(at))
            assert exact * (1 - 1e-12) - 1e-14 <= found <= exact + 1e-13
            if found > 1e-6:
                assert Claim(largest).epsilon_at(delta=found) == pytest.approx(at, abs=1e-9)


def test_the_sampled_cap_is_that_of_three_outcomes() -> None:
    """ln(1 + q(e^ε − 1)) is reached by removal, and not passed by addition."""
    q, largest = 0.3, 1.2
    p = np.array([math.exp(largest), 1.0]) / (1 + math.exp(largest))
    mixed = (1 - q) * p[::-1] + q * p
    loss = np.log(mixed / p[::-1])
    event = PoissonSampled(probability=q, event=Laplace(noise_multiplier=1 / largest))
    found = outright_claim(event=event, adjacency=ADD).epsilon
    assert found == pytest.approx(loss.max(), rel=1e-12)
    assert -loss.min() <= found
