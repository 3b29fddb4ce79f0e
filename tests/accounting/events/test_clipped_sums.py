"""Sums that a unit moves by a random amount, against quadrature and dp-accounting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    Mixture,
    MixtureOfGaussians,
    PoissonSampled,
    Repeated,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
    from_dp_event,
    to_dp_event,
    without_amplification,
)
from dpacc_accounting.events.flattening import releases
from numpy.typing import NDArray

ADD, REPLACE = Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE
Law = NDArray[np.float64]
OUTPUTS = np.linspace(-14, 18, 64_001)
AMOUNTS: list[tuple[float, tuple[float, ...], tuple[float, ...]]] = [
    (1.0, (0.2, 0.6, 0.2), (0.0, 1.0, 2.0)),
    (1.0, (0.2, 0.8), (1.0, 2.0)),
    (0.7, (0.9, 0.07, 0.03), (0.0, 0.5, 1.5)),
    (2.0, (0.5, 0.25, 0.25), (1.0, 0.1, 3.0)),
]


def mixture(
    sigma: float, weights: tuple[float, ...], sizes: tuple[float, ...]
) -> MixtureOfGaussians:
    return MixtureOfGaussians(noise_multiplier=sigma, weights=weights, sensitivities=sizes)


def laws(event: MixtureOfGaussians, sign: float = 1) -> Law:
    """Output densities with the unit, its amounts all pulling one way, in units of the noise."""
    found = np.zeros_like(OUTPUTS)
    for size, weight in zip(event.sensitivities, event.weights, strict=True):
        found += weight * np.exp(-((OUTPUTS - sign * size / event.noise_multiplier) ** 2) / 2)
    return found / math.sqrt(2 * math.pi) * (OUTPUTS[1] - OUTPUTS[0])


def exact_delta(p: Law, q: Law, at: float) -> float:
    """The larger hockey-stick divergence of two laws on the same outputs."""
    ways = ((p, q), (q, p))
    return max(float(np.maximum(one - math.exp(at) * other, 0).sum()) for one, other in ways)


@pytest.mark.parametrize(("sigma", "weights", "sizes"), AMOUNTS)
def test_one_release_is_the_integral(
    sigma: float, weights: tuple[float, ...], sizes: tuple[float, ...]
) -> None:
    """δ at several ε, the worse of the unit removed and added, to nine digits."""
    event, without = mixture(sigma, weights, sizes), laws(mixture(sigma, (1.0,), (0.0,)))
    for at in (0.0, 0.2, 1.0, 2.5):
        exact = exact_delta(laws(event), without, at)
        assert delta(event=event, epsilon=at).delta == pytest.approx(exact, rel=1e-5, abs=1e-9)
        if exact > 1e-9:
            assert epsilon(event=event, delta=exact).epsilon == pytest.approx(at, abs=1e-4)


@pytest.mark.parametrize(("sigma", "weights", "sizes"), AMOUNTS)
def test_the_hidden_draw_is_worth_something(
    sigma: float, weights: tuple[float, ...], sizes: tuple[float, ...]
) -> None:
    """Less than the same with the draw revealed, more than its mean amount for certain."""
    event = mixture(sigma, weights, sizes)
    parts = tuple(Gaussian(noise_multiplier=sigma / s) if s else Composed(events=()) for s in sizes)
    seen = Mixture(weights=weights, events=parts)
    mean = sum(w * s for w, s in zip(weights, sizes, strict=True))
    for times in (1, 20):
        prices = [
            epsilon(event=Repeated(event=one, times=times), delta=1e-5)
            for one in (Gaussian(noise_multiplier=sigma / mean), event, seen)
        ]
        assert prices[0].epsilon < prices[1].epsilon < 0.999 * prices[2].epsilon
        assert prices[1].slack < 2e-3 * prices[1].epsilon


@pytest.mark.parametrize(("sigma", "weights", "sizes"), AMOUNTS[2:])
def test_compositions_are_dp_accountings(
    sigma: float, weights: tuple[float, ...], sizes: tuple[float, ...]
) -> None:
    """Its event, there and back, and its privacy loss distributions."""
    event = mixture(sigma, weights, sizes)
    assert from_dp_event(event=to_dp_event(event=event)) == event
    accountant = PLDAccountant(value_discretization_interval=4e-3)
    theirs = accountant.compose(to_dp_event(event=event), 10).get_epsilon(1e-5)
    found = epsilon(event=Repeated(event=event, times=10), delta=1e-5)
    assert found.epsilon - found.slack <= theirs * (1 + 1e-6)
    assert found.epsilon == pytest.approx(theirs, rel=2e-3)


def test_zero_and_one_amount_is_a_poisson_sample() -> None:
    """One amount is a Gaussian, or a sample of it; none is nothing; equal ones are added up."""
    once = mixture(3.0, (0.75, 0.1, 0.15), (0.0, 2.0, 2.0))
    sample = PoissonSampled(probability=0.25, event=Gaussian(noise_multiplier=1.5))
    assert releases(event=once) == releases(event=sample)
    assert releases(event=mixture(3.0, (1.0,), (2.0,))) == releases(event=sample.event)
    assert releases(event=mixture(0.0, (1.0, 0.0), (0.0, 5.0))) == {}
    removed = MixtureOfGaussiansDpEvent(3.0, [0.0, -2.0, -1.0], [0.5, 0.25, 0.25])
    assert from_dp_event(event=removed) == mixture(3.0, (0.5, 0.25, 0.25), (0.0, 2.0, 1.0))


def test_a_replaced_units_draw_counts_as_seen() -> None:
    """Under replace-one: the mixture of twice the amounts, no less than the integral."""
    event = mixture(1.0, (0.2, 0.6, 0.2), (0.0, 0.5, 1.0))
    for at in (0.0, 0.5, 2.0):
        exact = exact_delta(laws(event), laws(event, sign=-1), at)
        found = delta(event=event, epsilon=at, adjacency=REPLACE).delta
        assert exact < found < exact + 0.1
    loose = epsilon(event=event, delta=1e-5, adjacency=REPLACE, method="rdp").epsilon
    assert loose >= epsilon(event=event, delta=1e-5, adjacency=REPLACE).epsilon * (1 - 1e-4)


def test_a_sample_of_it_is_a_mixture_of_more() -> None:
    """A coin around the draw is a draw of 0 more often."""
    once = mixture(1.0, (0.5, 0.5), (1.0, 2.0))
    thinned = mixture(1.0, (0.7, 0.15, 0.15), (0.0, 1.0, 2.0))
    sampled = PoissonSampled(probability=0.3, event=once)
    for times in (1, 8):
        found, exact = (
            epsilon(event=Repeated(event=event, times=times), delta=1e-5).epsilon
            for event in (sampled, thinned)
        )
        assert exact * (1 - 1e-4) <= found <= exact * 1.002
    assert delta(event=thinned, epsilon=30.0).delta < 0.3


def test_who_sees_the_draw_sees_the_largest_amount() -> None:
    """Without what chance hides, the unit moves the sum by the most that it may."""
    event = mixture(3.0, (0.5, 0.4, 0.1), (0.0, 1.0, 2.0))
    assert without_amplification(event=event) == Gaussian(noise_multiplier=1.5)
    assert without_amplification(event=mixture(3.0, (1.0,), (0.0,))) == Composed(events=())


@pytest.mark.parametrize(
    ("sizes", "sigma", "most"),
    [((0.5, 1e3), 1.0, math.inf), ((1.0, 2.0), 0.0, math.inf), ((1e-60, 1e-59), 1.0, 1e-50)],
)
def test_far_from_any_use_it_is_still_bounded(
    sizes: tuple[float, ...], sigma: float, most: float
) -> None:
    """Amounts beyond a grid, no noise at all, hardly any amount."""
    event = mixture(sigma, (0.5, 0.5), sizes)
    once = epsilon(event=event, delta=1e-5)
    assert 0 <= once.epsilon <= most
    assert once.epsilon >= epsilon(event=event, delta=1e-3).epsilon
    if sigma:
        assert once.epsilon <= epsilon(event=without_amplification(event=event), delta=1e-5).epsilon
    else:
        assert once.epsilon == math.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((-1.0, (1.0,), (1.0,)), "noise_multiplier=-1.0"),
        ((1.0, (0.5, 0.5), (1.0,)), "2 weights for 1 sensitivities"),
        ((1.0, (0.5, 0.4), (1.0, 2.0)), "do not add up to 1"),
        ((1.0, (1.5, -0.5), (1.0, 2.0)), "weights="),
        ((1.0, (1.0,), (-1.0,)), "sensitivities="),
        ((1.0, (1.0,), (math.inf,)), "sensitivities="),
        ((1.0, (math.nan,), (1.0,)), "weights="),
        ((1.0, (), ()), "do not add up"),
    ],
)
def test_what_is_out_of_range_is_refused(fields, message: str) -> None:
    """One line with the culprit."""
    with pytest.raises(ValueError, match=message):
        mixture(*fields)


def test_it_is_a_document() -> None:
    """JSON and back; a list that is none is refused."""
    event = mixture(1.0, (0.25, 0.75), (0.0, 2.0))
    document = event_to_json(event=event)
    assert document["sensitivities"] == [0.0, 2.0]
    assert event_from_json(document=document) == event
    with pytest.raises(ValueError, match="'sensitivities' is a list here"):
        event_from_json(document={**document, "sensitivities": 2.0})
