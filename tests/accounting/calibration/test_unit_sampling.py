"""Noise for whole people: sampled whole, or example by example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dpacc_accounting import epsilon
from dpacc_accounting.calibration.unit_sampling import (
    UnitSampling,
    calibrate_example_sampling,
    compare_unit_sampling,
)


def compared(*, unit_cap: int, batch: int = 50, budget: float = 4.0) -> UnitSampling:
    """A thousand people who own `unit_cap` examples each, three passes."""
    return compare_unit_sampling(
        units=1000,
        examples=1000 * unit_cap,
        batch_of_units=batch,
        unit_cap=unit_cap,
        epochs=3,
        epsilon=budget,
        delta=1e-4,
    )


@pytest.mark.parametrize(("unit_cap", "budget"), [(1, 4.0), (4, 1.0), (16, 8.0)])
def test_both_keep_the_budget_and_spend_it(unit_cap: int, budget: float) -> None:
    """Each is priced at its target, from below, over as many steps and gradients."""
    both = compared(unit_cap=unit_cap, budget=budget)
    for found in (both.units, both.examples):
        again = epsilon(event=found.event, delta=1e-4).epsilon
        assert again == found.guarantee.epsilon
        assert 0.999 * budget < again <= budget
    assert both.units.steps == both.examples.steps == 60
    assert both.batch_of_examples == both.batch_of_units * unit_cap


def test_one_example_each_makes_no_difference() -> None:
    """Then a unit is an example, and both are the same run."""
    both = compared(unit_cap=1)
    assert both.break_even == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("unit_cap", [2, 8])
def test_single_examples_have_less_noise_until_means_are_short(unit_cap: int) -> None:
    """Chance keeps a unit's share low: less noise, but not by more than a mean can be shorter."""
    both = compared(unit_cap=unit_cap)
    assert 1 / math.sqrt(unit_cap) < both.break_even < 1
    assert both.better == "either"
    assert compared(unit_cap=unit_cap, batch=5).better == "examples"


def test_simulated_runs_lose_no_more_than_was_asked_for() -> None:
    """200,000 runs of four steps with three examples of a unit: δ at ε, within five errors."""
    target, small, draw = 2.0, 1e-3, np.random.default_rng(4)
    found = calibrate_example_sampling(
        examples=300, units=100, batch_size=75, unit_cap=3, steps=4, epsilon=target, delta=small
    )
    sigma, chances = found.noise_multiplier, [0.421875, 0.421875, 0.140625, 0.015625]
    losses = np.zeros(200_000)
    for _ in range(4):
        moved = draw.binomial(3, 0.25, len(losses))
        z = moved + sigma * draw.normal(size=len(losses))
        growths = [p * np.exp((j * z - j * j / 2) / sigma**2) for j, p in enumerate(chances)]
        losses += np.log(np.sum(growths, axis=0))
    lost = np.maximum(-np.expm1(target - losses), 0)
    assert lost.mean() == pytest.approx(small, abs=5 * lost.std() / math.sqrt(len(lost)))


@pytest.mark.parametrize(("examples", "unit_cap"), [(99, 5), (501, 5)])
def test_numbers_that_do_not_fit_are_refused(examples: int, unit_cap: int) -> None:
    """A hundred people cannot own fewer than a hundred examples, nor more than the cap lets."""
    with pytest.raises(ValueError, match=f"examples={examples} cannot be those of units=100"):
        compare_unit_sampling(
            units=100,
            examples=examples,
            batch_of_units=10,
            unit_cap=unit_cap,
            epochs=1,
            epsilon=1.0,
            delta=1e-3,
        )
