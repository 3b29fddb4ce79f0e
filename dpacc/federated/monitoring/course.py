"""Where a run stood, step by step: what it had spent, and what it was worth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpacc_accounting import Adjacency, Guarantee
from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement.

    Args:
        step: the round or the logical step after which it was made; 0 before the first.
        guarantee: what the ledger says was spent by then, with its notes; None while nothing was.
        metrics: what was measured, by name.
    """

    step: int
    guarantee: Guarantee | None
    metrics: Mapping[str, float]

    @property
    def epsilon(self) -> float:
        """0 while nothing was spent; infinite where a note voids what was."""
        return 0.0 if self.guarantee is None else self.guarantee.epsilon


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one more ε brought between two measurements: Δquality / Δε.

    A difference of two measured qualities, so their errors add up, and over a small Δε they are
    most of it. No quality is ever divided by the whole of ε, which says nothing: half the ε does
    not cost half the quality.

    Args:
        step: of the later one.
        epsilon: there.
        value: per unit of ε; positive is better, also where less of the metric is.
    """

    step: int
    epsilon: float
    value: float


@dataclass(kw_only=True)
class Course:
    """All measurements of a run, in order.

    Args:
        name: the run's.
        points: its measurements.
        falling: metrics of which less is better.
    """

    name: str
    points: list[Point] = field(default_factory=list)
    falling: frozenset[str] = frozenset({"perplexity", "loss"})

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all that was ever measured."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.metrics))

    def measured(self, metric: str) -> list[Point]:
        """The points at which a metric was.

        Raises:
            ConfigurationError: it never was.
        """
        found = [point for point in self.points if metric in point.metrics]
        if not found:
            known = ", ".join(self.metrics) or "nothing"
            raise ConfigurationError(f"{self.name} never measured {metric!r}; it measured {known}")
        return found

    def marginal_gains(self, metric: str) -> list[Gain]:
        """What each further ε brought, between measurements whose ε are finite and differ.

        >>> spent = lambda epsilon: Guarantee(epsilon=epsilon, delta=1e-5, unit="example",
        ...     adjacency=Adjacency.ADD_OR_REMOVE, method="pld", slack=0.0)
        >>> points = [Point(step=0, guarantee=None, metrics={"accuracy": 0.5}),
        ...           Point(step=1, guarantee=spent(2.0), metrics={"accuracy": 0.7}),
        ...           Point(step=2, guarantee=spent(4.0), metrics={"accuracy": 0.75})]
        >>> gains = Course(name="a", points=points).marginal_gains("accuracy")
        >>> [round(each.value, 3) for each in gains]
        [0.1, 0.025]
        """
        sign = -1.0 if metric in self.falling else 1.0
        found, before = [], None
        for point in placed(self, metric):
            if before is not None and point.epsilon > before.epsilon:
                risen = sign * (point.metrics[metric] - before.metrics[metric])
                value = risen / (point.epsilon - before.epsilon)
                found.append(Gain(step=point.step, epsilon=point.epsilon, value=value))
            if before is None or point.epsilon > before.epsilon:
                before = point
        return found

    @property
    def guarantee(self) -> Guarantee | None:
        """What all of it cost: the last point's, with every note that any point bore."""
        stated = [point.guarantee for point in self.points if point.guarantee is not None]
        if not stated:
            return None
        return stated[-1].noted([note for each in stated for note in each.notes])

    def to_json(self) -> dict[str, Any]:
        """As plain data, ε with all that must be said beside it."""
        return {
            "name": self.name,
            "falling": sorted(self.falling),
            "points": [
                {
                    "step": point.step,
                    "guarantee": None if point.guarantee is None else _as_json(point.guarantee),
                    "metrics": {name: _number(value) for name, value in point.metrics.items()},
                }
                for point in self.points
            ],
        }

    def save(self, path: Path | str) -> None:
        """Write it to a file, for `Course.read` and `compare`."""
        from dpacc.artifacts.run_folder import write_file

        write_file(path=Path(path), content=json.dumps(self.to_json()).encode())

    @classmethod
    def read(cls, path: Path | str) -> Course:
        """Read what `save` wrote.

        Raises:
            ConfigurationError: it holds no course.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            points = [
                Point(
                    step=int(each["step"]),
                    guarantee=None if each["guarantee"] is None else _read(each["guarantee"]),
                    metrics={str(n): float(value) for n, value in each["metrics"].items()},
                )
                for each in told["points"]
            ]
            return cls(name=str(told["name"]), points=points, falling=frozenset(told["falling"]))
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(f"{path} holds no course of a run") from None


def placed(course: Course, metric: str) -> list[Point]:
    """The points that have a place in a curve: their ε and their quality are finite."""
    return [
        point
        for point in course.measured(metric)
        if math.isfinite(point.epsilon) and math.isfinite(point.metrics[metric])
    ]


def require_comparable(courses: Sequence[Course]) -> None:
    """See that ε means the same in all of them.

    Raises:
        ConfigurationError: δ, adjacency or unit differ, or nothing is given.
    """
    if not courses:
        raise ConfigurationError("there is no run to show: give one or more")
    stated = [g for course in courses if (g := course.guarantee) is not None]
    meant = {(each.delta, str(each.adjacency), each.unit) for each in stated}
    if len(meant) > 1:
        told = "; ".join(f"δ = {delta:g}, {how}, {unit}" for delta, how, unit in sorted(meant))
        raise ConfigurationError(
            f"ε of these runs cannot be compared ({told}): state all at one δ, adjacency and unit"
        )


def _as_json(guarantee: Guarantee) -> dict[str, Any]:
    return guarantee.to_json() | {"notes": [[n.subject, n.text] for n in guarantee.notes]}


def _read(told: Mapping[str, Any]) -> Guarantee:
    return Guarantee(
        epsilon=float(told["epsilon"]),
        delta=float(told["delta"]),
        adjacency=Adjacency(told["adjacency"]),
        unit=str(told["unit"]),
        method=str(told["method"]),
        slack=float(told["slack"]),
        notes=tuple(Note(str(subject), str(text)) for subject, text in told["notes"]),
    )


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
