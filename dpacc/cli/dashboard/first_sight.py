"""What a run's files say at first sight: read in a millisecond, neither checked nor priced.

A thousand runs are listed from this. The plan is the ledger's first line; releases are counted and
notes read wherever they stand, so that what voids a run is told at once. ε is what the run itself
recorded, and only where that covers every release of the ledger; until the ledger is priced it is
shown as recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from dpacc_accounting import Adjacency, Guarantee
from dpacc_accounting.guarantee import Note

from dpacc.artifacts.kept.metrics import METRICS_FILE, from_row, read_metrics
from dpacc.artifacts.progress_chart import Measurement
from dpacc.artifacts.proof import RUN_FILE
from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import Metric

PROOF_FILE = "privacy.json"
_RELEASE, _NOTE, _HASH = b'"kind":"release"', b'"kind":"note"', b'"hash":"'
_SEARCH = b'"event":"selected"'
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class FirstSight:
    """A run, as its files say.

    Args:
        plan: what the ledger's first line holds.
        steps_charged: how many releases the ledger holds.
        notes: what voids or qualifies it, from the ledger.
        recorded: ε as the run recorded it after its last release; None where none covers it.
        searched: whether all trials of a search were charged at once.
        torn: whether the last line is cut short; what it announced was never released.
        measured: held-out quality, in order of steps.
    """

    plan: Mapping[str, Any]
    steps_charged: int
    notes: tuple[Note, ...]
    recorded: Guarantee | None
    searched: bool
    torn: bool
    measured: tuple[Measurement, ...]


def first_sight(*, ledger: Path) -> FirstSight:
    """Read a run's ledger and what lies beside it, without checking the ledger's chain.

    Raises:
        ValueError: the ledger's first line or a note is damaged.
        OSError: it cannot be read.
    """
    data = ledger.read_bytes()
    plan = json.loads(data.partition(b"\n")[0])["plan"]
    if not isinstance(plan, dict):
        raise ValueError("its first line holds no plan")
    whole = data[: data.rfind(b"\n") + 1]
    steps = whole.count(_RELEASE)
    notes = tuple(_notes(whole)) if _NOTE in whole else ()
    course = measurements(folder=ledger.parent)
    recorded = _proved(ledger.parent / PROOF_FILE, whole) or _stood(course, plan, whole, steps)
    return FirstSight(
        plan=plan,
        steps_charged=steps,
        notes=notes,
        recorded=None if recorded is None else recorded.noted(notes),
        searched=_SEARCH in whole,
        torn=len(whole) < len(data),
        measured=with_quality(course),
    )


def measurements(*, folder: Path) -> tuple[Measurement, ...]:
    """Where the run stood, step by step: a running one's `metrics.jsonl`, else `run.json`.

    Quality is of held-out data. Of a damaged file nothing is shown: it proves nothing.
    """
    try:
        return tuple(read_metrics(path=folder / METRICS_FILE))
    except (OSError, ConfigurationError):
        pass
    try:
        said = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["course"]
        return tuple(from_row(each) for each in said)
    except _DAMAGED:
        return ()


def with_quality(course: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Those where quality was measured, as a number of a kind that is known."""
    return tuple(
        each
        for each in course
        if each.quality is not None
        and math.isfinite(each.quality)
        and each.metric in get_args(Metric)
    )


def _notes(data: bytes) -> list[Note]:
    lines = (json.loads(each) for each in data.split(b"\n") if _NOTE in each)
    return [Note(each["subject"], each["text"]) for each in lines if each["kind"] == "note"]


def _proved(path: Path, ledger: bytes) -> Guarantee | None:
    """What `privacy.json` states, if no release of the ledger came after it."""
    try:
        proof = json.loads(path.read_bytes())
        stated, head = proof["guarantee"], str(proof["ledger"]["head"])
        at = ledger.rfind(_HASH + head.encode())
        if len(head) != 64 or at < 0 or _RELEASE in ledger[at:]:
            return None
        return Guarantee(
            epsilon=float(stated["epsilon"]),
            delta=float(stated["delta"]),
            adjacency=Adjacency(stated["adjacency"]),
            unit=str(stated["unit"]),
            method=str(stated["method"]),
            slack=float(stated["slack"]),
        )
    except _DAMAGED:
        return None


def _stood(
    course: tuple[Measurement, ...], plan: Mapping[str, Any], ledger: bytes, steps: int
) -> Guarantee | None:
    """What `metrics.jsonl` says after the last charged step, if its line is there already."""
    try:
        last = json.loads(ledger[ledger.rfind(b"\n", 0, -1) + 1 :]) if steps else {"step": -1}
        if not course or "step" not in last or course[-1].step != last["step"] + 1:
            return None
        return Guarantee(
            epsilon=course[-1].epsilon,
            delta=float(plan["target_delta"]),
            adjacency=Adjacency(plan["adjacency"]),
            unit=str(plan["unit"]),
            method="pld",
            slack=math.inf,
        )
    except _DAMAGED:
        return None
