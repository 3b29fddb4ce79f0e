"""Units whose examples are sampled one by one: what a step and a run may cost them."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import Gaussian, PoissonSampled, Repeated, delta, epsilon
from dpacc_accounting.events.example_sampling import ExampleSampling, drawn_of_a_unit


def run(unit_cap: int, *, q: float = 0.3, sigma: float = 1.5) -> ExampleSampling:
    """Of a thousand examples."""
    return ExampleSampling(
        dataset_size=1000,
        expected_batch_size=round(1000 * q),
        noise_multiplier=sigma,
        unit_cap=unit_cap,
    )


@pytest.mark.parametrize("others", [[0, 0, 0], [-1, -1, -1], [1, -1, 0.5]])
@pytest.mark.parametrize("mine", [[1, 1, 1], [1, -1, 1], [0.2, 1, 0.9]])
def test_no_data_of_a_unit_lose_more(mine: list[float], others: list[float]) -> None:
    """Every sample of three examples of a unit beside three others listed: δ is below the bound."""
    q, sigma = 0.3, 1.5
    z = np.linspace(-16, 16, 8_001)

    def density(units: list[float]) -> np.ndarray:
        total = np.zeros_like(z)
        for drawn in itertools.product([0, 1], repeat=len(units)):
            chance = math.prod(q if one else 1 - q for one in drawn)
            moved = sum(unit for unit, one in zip(units, drawn, strict=True) if one)
            total += chance * np.exp(-(((z - moved) / sigma) ** 2) / 2)
        return total / (sigma * math.sqrt(2 * math.pi))

    present, absent = density([*others, *mine]), density(others)
    for at in (0.0, 0.5, 1.5):
        bound = delta(event=run(3).event(steps=1), epsilon=at).delta
        for one, other in ((present, absent), (absent, present)):
            lost = np.maximum(one - math.exp(at) * other, 0).sum() * (z[1] - z[0])
            assert lost <= bound + 1e-6  # the sum over nodes is as exact as that
        if set(mine) == {1} and set(others) == {0}:
            lost = np.maximum(present - math.exp(at) * absent, 0).sum() * (z[1] - z[0])
            assert lost == pytest.approx(bound, rel=1e-3)


def test_one_example_each_is_a_poisson_sample() -> None:
    """Where nobody owns two, it costs what sampling units costs."""
    sampled = PoissonSampled(probability=0.3, event=Gaussian(noise_multiplier=1.5))
    usual = epsilon(event=Repeated(event=sampled, times=20), delta=1e-6)
    found = epsilon(event=run(1).event(steps=20), delta=1e-6)
    assert found.epsilon == pytest.approx(usual.epsilon, rel=1e-3)


def test_it_is_dp_accountings_price() -> None:
    """Ten steps of units with three examples, as a composed mixture of Gaussians."""
    found = epsilon(event=run(3).event(steps=10), delta=1e-5).epsilon
    chances = [math.comb(3, j) * 0.3**j * 0.7 ** (3 - j) for j in range(4)]
    theirs = PLDAccountant(value_discretization_interval=1e-2).compose(
        SelfComposedDpEvent(MixtureOfGaussiansDpEvent(1.5, list(range(4)), chances), 10)
    )
    assert found == pytest.approx(theirs.get_epsilon(1e-5), rel=5e-3)


@pytest.mark.parametrize(("q", "cap"), [(0.01, 4), (0.5, 17), (1e-5, 300), (1.0, 5), (0.0, 2)])
def test_chances_are_binomial_and_never_below(q: float, cap: int) -> None:
    """In whole fractions: each chance of some is the binomial's, and at most 1e-10 more."""
    found = drawn_of_a_unit(probability=q, unit_cap=cap)
    assert len(found) == cap + 1
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)
    for drawn, chance in list(enumerate(found))[1:]:
        exact = math.comb(cap, drawn) * Fraction(q) ** drawn * (1 - Fraction(q)) ** (cap - drawn)
        if exact > Fraction(1, 10**300) or q == 0:
            assert exact <= Fraction(chance) <= exact * (1 + Fraction(1, 10**10))


def test_steps_are_charged_one_by_one() -> None:
    """The charges of a run add up to its event, and a new secret may begin after any step."""
    plan = run(4)
    charges = {plan.charge(step=step, steps=7) for step in range(7)}
    assert charges == {plan.event(steps=7).event}  # type: ignore[union-attr]
    assert [plan.next_start(steps_charged=n) for n in range(3)] == [0, 1, 2]
    assert (plan.cycle, plan.probability) == (1, 0.3)


def test_more_than_can_be_told_apart_is_refused() -> None:
    """A unit with more examples than doubles can tell chances of gets the remedy."""
    with pytest.raises(ValueError, match="keep fewer, or sample whole units"):
        run(1001).event(steps=1)
