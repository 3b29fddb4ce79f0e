"""Solve for noise that is correlated between rounds in which nobody takes part again too soon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from dpacc_accounting.calibration.event_scale import calibrate_event
from dpacc_accounting.events.arguments import whole
from dpacc_accounting.events.fields import shown
from dpacc_accounting.events.separated_participation import SeparatedParticipation
from dpacc_accounting.factorization.buffered import (
    ToeplitzColumn,
    optimal_buffers,
    separated_bands,
)
from dpacc_accounting.factorization.workload import Workload
from dpacc_accounting.guarantee import Adjacency, Guarantee

Correlation: TypeAlias = Literal["independent", "banded", "buffers"]


@dataclass(frozen=True, kw_only=True)
class SeparatedCalibration:
    """Correlated noise that meets a target, for rounds without sampling.

    Args:
        noise_multiplier: σ, of the noise before it is correlated.
        column: C's first column.
        event: all rounds.
        guarantee: its price, with ε at most the target.
        error: root mean square of the noise in the workload, relative to independent noise of the
            same price.
    """

    noise_multiplier: float
    column: ToeplitzColumn
    event: SeparatedParticipation
    guarantee: Guarantee
    error: float


def calibrate_separated_noise(
    *,
    rounds: int,
    min_separation: int,
    epsilon: float,
    delta: float,
    correlation: Correlation = "banded",
    buffers: int = 2,
    participations: int | None = None,
    workload: Workload | None = None,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "client",
) -> SeparatedCalibration:
    """The noise that leaves least in a workload and keeps rounds without sampling (ε, δ)-private.

    Args:
        rounds: T.
        min_separation: b: who took part in round t may again from round t + b on.
        epsilon: target ε > 0.
        delta: target δ in (0, 1).
        correlation: "banded", of at most b bands, which keeps up to b − 1 vectors; "buffers", which
            keeps as many as `buffers`; or "independent".
        buffers: how many, for "buffers".
        participations: k, the most rounds of one unit, if that is enforced; else ⌈T/b⌉.
        workload: what the run makes of its noise; left out, sums of equal weight.
        adjacency: which neighbours.
        unit: whose data one unit is, for the record.

    Raises:
        ValueError: an argument is out of range, or the workload has another number of steps.

    Source: Choquette-Choo et al. 2023 (arXiv 2306.08153); McMahan et al. 2024 (arXiv 2404.16706).

    >>> found = calibrate_separated_noise(rounds=50, min_separation=10, epsilon=8.0, delta=1e-6)
    >>> found.event.turns, round(found.noise_multiplier, 3), round(found.error, 2)
    (5, 1.46, 0.47)
    """
    count, apart = whole("rounds", rounds), whole("min_separation", min_separation)
    course = workload or Workload.constant(steps=count)
    if course.steps != count:
        raise ValueError(f"the workload has {course.steps} steps, and the run {count} rounds")
    column = _column(correlation, course, apart, buffers, participations)

    def all_rounds(sigma: float) -> SeparatedParticipation:
        return column.event(
            noise_multiplier=sigma,
            separation=apart,
            rounds=count,
            participations=participations,
        )

    found = calibrate_event(
        event=all_rounds, epsilon=epsilon, delta=delta, adjacency=adjacency, unit=unit
    )
    return SeparatedCalibration(
        noise_multiplier=found.scale,
        column=column,
        event=all_rounds(found.scale),
        guarantee=found.guarantee,
        error=column.relative_error(
            workload=course, separation=apart, participations=participations
        ),
    )


def _column(
    correlation: Correlation,
    workload: Workload,
    separation: int,
    buffers: int,
    participations: int | None,
) -> ToeplitzColumn:
    match correlation:
        case "independent":
            return ToeplitzColumn(coefficients=(1.0,))
        case "banded":
            return separated_bands(workload=workload, separation=separation)
        case "buffers":
            return optimal_buffers(
                workload=workload,
                separation=separation,
                buffers=buffers,
                participations=participations,
            )
    raise ValueError(
        f"correlation={shown(correlation)} is none of {', '.join(get_args(Correlation))}"
    )
