"""Phases of a run get the least noise that keeps the budget of all of them together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dpacc_accounting import Phase, calibrate_noise, calibrate_phases, epsilon
from dpacc_accounting.events.participation import PhasedParticipation

PHASES = (
    Phase(steps=20, expected_batch_size=50, noise_multiplier=3.0),
    Phase(steps=80, expected_batch_size=100, noise_multiplier=1.5),
)


def test_the_noise_is_the_least_that_keeps_the_budget() -> None:
    """ε is at most the target; with a thousandth less noise it is beyond."""
    found = calibrate_phases(dataset_size=5000, phases=PHASES, epsilon=3.0, delta=1e-5)
    assert found.guarantee.epsilon <= 3.0
    assert found.guarantee == epsilon(event=found.event, delta=1e-5)
    quieter = tuple(
        replace(phase, noise_multiplier=0.999 * phase.noise_multiplier) for phase in found.phases
    )
    less = PhasedParticipation(dataset_size=5000, phases=quieter).event(steps=100)
    assert epsilon(event=less, delta=1e-5).epsilon > 3.0
    first, second = found.phases
    assert first.noise_multiplier == pytest.approx(2 * second.noise_multiplier)


def test_phases_that_are_alike_cost_what_one_run_costs() -> None:
    """Cut anywhere: the noise is that of one run of as many steps."""
    alike = tuple(
        Phase(steps=steps, expected_batch_size=100, noise_multiplier=1.0) for steps in (30, 70)
    )
    found = calibrate_phases(dataset_size=5000, phases=alike, epsilon=3.0, delta=1e-5)
    once = calibrate_noise(dataset_size=5000, batch_size=100, steps=100, epsilon=3.0, delta=1e-5)
    for phase in found.phases:
        assert phase.noise_multiplier == pytest.approx(once.noise_multiplier, rel=1e-4)


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ((), "no phases"),
        ((replace(PHASES[0], noise_multiplier=0.0),), "keeps no budget"),
        ((replace(PHASES[0], expected_batch_size=6000),), "exceeds dataset_size=5000"),
    ],
)
def test_phases_without_a_solution_are_refused(phases: tuple[Phase, ...], told: str) -> None:
    """With what is wrong with them."""
    with pytest.raises(ValueError, match=told):
        calibrate_phases(dataset_size=5000, phases=phases, epsilon=3.0, delta=1e-5)
