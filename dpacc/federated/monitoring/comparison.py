"""Runs side by side: what each ε bought, where ε means the same in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpacc_accounting import Guarantee

from dpacc.federated.monitoring.course import Course, require_comparable


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run in a comparison.

    Args:
        name: the run's.
        guarantee: of all of it; None where nothing was spent.
        start: the first measurement.
        end: the last.
        last_gain: what the last measured ε brought, per unit of ε; None where none is known.
    """

    name: str
    guarantee: Guarantee | None
    start: float
    end: float
    last_gain: float | None


def compare(courses: Sequence[Course], *, metric: str) -> list[Outcome]:
    """What each run is worth at its end, the best first.

    Args:
        courses: of a monitor (`monitor.course`), or read from a file (`Course.read`).
        metric: that all of them measured.

    Raises:
        ConfigurationError: δ, adjacency or unit differ, or a run never measured it.
    """
    require_comparable(courses)
    found = [_outcome(course, metric) for course in courses]
    rising = not any(metric in course.falling for course in courses)
    return sorted(found, key=lambda each: each.end, reverse=rising)


def _outcome(course: Course, metric: str) -> Outcome:
    values = [point.metrics[metric] for point in course.measured(metric)]
    gains = course.marginal_gains(metric)
    return Outcome(
        name=course.name,
        guarantee=course.guarantee,
        start=values[0],
        end=values[-1],
        last_gain=gains[-1].value if gains else None,
    )
