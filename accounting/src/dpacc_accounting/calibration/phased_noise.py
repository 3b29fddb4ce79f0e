"""Solve for the noise of a run in several phases, given how their noises compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpacc_accounting.calibration.event_scale import calibrate_event
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.participation import Phase, PhasedParticipation
from dpacc_accounting.guarantee import Adjacency, Guarantee


@dataclass(frozen=True, kw_only=True)
class PhasedCalibration:
    """Phases that together meet their target, and the guarantee that was evaluated for them.

    Args:
        phases: as they were given, each with its own noise multiplier.
        event: what the whole run releases.
        guarantee: its price, with ε at most the target.
    """

    phases: tuple[Phase, ...]
    event: Event
    guarantee: Guarantee


def calibrate_phases(
    *,
    dataset_size: int,
    phases: Sequence[Phase],
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> PhasedCalibration:
    """The least noise for all phases together, in the proportions that are given.

    Phase i has noise σᵢ = s·rᵢ, rᵢ being its `noise_multiplier` as given and s the least scale
    (to 6 digits, rounded up) with which the composition of all steps is (ε, δ)-private. A phase of
    T steps at rate q spends about q²T(exp(1/σ²) − 1) of what adds up over phases (the central
    limit), so the proportions say what share of the budget each takes.

    Args:
        dataset_size: N, in privacy units.
        phases: steps, batch and relative noise of each, in their order.
        epsilon: target ε > 0.
        delta: target δ in (0, 1).
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.

    Raises:
        ValueError: there are no phases, one has no noise or a batch beyond N, or a target is out of
            range.

    Source: composition as in `epsilon`.

    >>> found = calibrate_phases(dataset_size=5000, epsilon=8.0, delta=1e-5, phases=(
    ...     Phase(steps=30, expected_batch_size=100, noise_multiplier=2.0),
    ...     Phase(steps=70, expected_batch_size=200, noise_multiplier=1.0)))
    >>> first, second = found.phases
    >>> first.noise_multiplier == 2 * second.noise_multiplier, found.guarantee.epsilon <= 8.0
    (True, True)
    """
    given = tuple(phases)
    if not given:
        raise ValueError("there are no phases; give at least one Phase")
    for phase in given:
        if phase.noise_multiplier == 0:
            raise ValueError("a phase with noise_multiplier=0 keeps no budget at any scale")
        if phase.expected_batch_size > dataset_size:
            raise ValueError(
                f"expected_batch_size={phase.expected_batch_size} of a phase exceeds "
                f"dataset_size={dataset_size}; lower the batch size"
            )

    def scaled(scale: float) -> tuple[Phase, ...]:
        return tuple(
            replace(phase, noise_multiplier=scale * phase.noise_multiplier) for phase in given
        )

    steps = sum(phase.steps for phase in given)

    def event(scale: float) -> Event:
        run = PhasedParticipation(dataset_size=dataset_size, phases=scaled(scale))
        return run.event(steps=steps)

    found = calibrate_event(
        event=event,
        epsilon=epsilon,
        delta=delta,
        start=1 / math.fsum(phase.noise_multiplier for phase in given) * len(given),
        adjacency=adjacency,
        unit=unit,
    )
    return PhasedCalibration(
        phases=scaled(found.scale), event=found.event, guarantee=found.guarantee
    )
