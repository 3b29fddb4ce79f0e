"""Privacy-utility curves: of runs and federations by their books, and as monitors saved them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from dpacc_accounting import Guarantee, LedgerRecord, read_ledger
from dpacc_accounting.guarantee import rounded_up
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.document.content import Table
from dpacc.artifacts.progress_chart import Measurement
from dpacc.cli.dashboard.one_federation import FederationView
from dpacc.cli.dashboard.one_run import RunView
from dpacc.cli.dashboard.places import LEDGER
from dpacc.cli.dashboard.prices import price_of, spent_after
from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring.comparison import compare
from dpacc.federated.monitoring.course import Course, Point, placed
from dpacc.federated.monitoring.curve import stated_beneath
from dpacc.federated.monitoring.utility_monitor import NOTE

MEAN = "held-out quality, mean of kinds"
WHOSE = (
    "ε of a run is the price of its ledger, ε of a federation the largest of a client as its books "
    "say; of a saved course it is what its monitor recorded. Gains are differences of two measured "
    "qualities, whose errors add up."
)
_MOST_POINTS = 13
_LESS = 1 - 1e-9


def course_of_run(view: RunView) -> Course:
    """Held-out quality beside what the ledger says was spent by then, at some steps of many."""
    points = [
        Point(
            step=each.step,
            guarantee=_after(view.record, view.claim, each.step),
            metrics={each.metric: each.quality},
        )
        for each in _thinned(view.measured)
        if each.quality is not None
    ]
    return Course(name=view.listed.name, points=points)


def course_of_federation(view: FederationView) -> Course:
    """Held-out quality beside the largest ε of a client, round by round.

    None of it where who took part is a secret, which ε after a round would tell of.
    """
    stated = view.found.worst_server.server.noted(view.found.told)
    points = [
        Point(
            step=each.number,
            guarantee=replace(stated, epsilon=spent),
            metrics={MEAN: mean(each.quality.values()), **each.quality},
        )
        for spent, each in zip(view.told, view.rounds, strict=True)
        if each.quality
    ]
    return Course(name=view.name, points=points)


def saved_course(path: Path) -> Course | str:
    """What a monitor saved, or why it is not shown.

    What was computed from private data without noise is not, nor a course that says less than the
    ledger beside it.
    """
    try:
        course = Course.read(path)
        notes = [note for each in course.points if each.guarantee for note in each.guarantee.notes]
        if any(note.subject == NOTE for note in notes):
            return f"{NOTE}: it holds what was computed from private data without noise"
        beside = path.parent / LEDGER
        return _less_than(beside, course) or course if beside.is_file() else course
    except (ConfigurationError, LedgerError, ValueError, OSError) as refusal:
        return str(refusal)


def shared_metrics(courses: Sequence[Course]) -> list[str]:
    """What all of them measured, in the first one's order."""
    first, *others = courses
    return [name for name in first.metrics if all(name in each.metrics for each in others)]


def in_words(courses: Sequence[Course], *, metric: str) -> str:
    """The picture, for whoever cannot see it."""
    return " ".join([f"Quality against ε, by {metric}.", *(_told(c, metric) for c in courses)])


def ends_table(courses: Sequence[Course], *, metric: str) -> Table:
    """What each was worth at first and at its end, and what more ε brought it last; best first."""
    return Table(
        caption=f"{metric}: {stated_beneath(courses)}".replace("\n", "; "),
        columns=("run", "ε", "at first", "at its end", "last gain per further ε"),
        rows=tuple(
            (
                each.name,
                "nothing spent" if each.guarantee is None else _epsilon(each.guarantee),
                f"{each.start:.4g}",
                f"{each.end:.4g}",
                "not known" if each.last_gain is None else f"{each.last_gain:+.3g}",
            )
            for each in compare(courses, metric=metric)
        ),
    )


def _after(record: LedgerRecord, claim: Guarantee, step: int) -> Guarantee | None:
    spent = spent_after(record=record, claim=claim, step=step)
    return replace(claim, epsilon=spent) if step else None


def _thinned(measured: Sequence[Measurement]) -> Sequence[Measurement]:
    """The first, the last, and some between them: each is priced."""
    if len(measured) <= _MOST_POINTS:
        return measured
    last = len(measured) - 1
    marks = {round(last * k / (_MOST_POINTS - 1)) for k in range(_MOST_POINTS)}
    return [measured[at] for at in sorted(marks)]


def _less_than(ledger: Path, course: Course) -> str | None:
    """Where a course says less than the ledger beside it."""
    record = read_ledger(path=ledger)
    claim = price_of(record)
    for point in course.points:
        told, least = point.guarantee, _after(record, claim, point.step)
        if told is not None and _meant(told) != _meant(claim):
            return "it states ε at another δ, adjacency or unit than the ledger beside it"
        if least is not None and point.epsilon < least.epsilon * _LESS:
            return (
                f"after step {point.step} it says ε = {rounded_up(point.epsilon)}, and the ledger "
                f"beside it {rounded_up(least.epsilon)}"
            )
    return None


def _meant(claim: Guarantee) -> tuple[float, str, str]:
    return claim.delta, str(claim.adjacency), claim.unit


def _told(course: Course, metric: str) -> str:
    points = placed(course, metric)
    if not points:
        return f"{course.name}: no ε may be claimed."
    first, last = (
        f"{each.metrics[metric]:.4g} at ε = {rounded_up(each.epsilon)}"
        for each in (points[0], points[-1])
    )
    return f"{course.name}: from {first} to {last}."


def _epsilon(claim: Guarantee) -> str:
    return rounded_up(claim.epsilon) if math.isfinite(claim.epsilon) else "none holds"
