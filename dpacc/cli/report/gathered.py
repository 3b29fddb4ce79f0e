"""All that a run's folder says of itself, read and priced anew: nothing is trained, or believed.

ε, its course and the bounds on attackers come from the ledger; `privacy.json`, the card and the
adapter are only compared with it. Held-out quality and settings come from `run.json`, where the
recipe wrote one: nothing private is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from dpacc_accounting import Event, Guarantee, LedgerRecord, epsilon
from dpacc_accounting.events.event import Selected
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.ledger.claims import AttackBounds, attack_bounds, claim_of, void_because
from dpacc_accounting.ledger.plan_settings import require_statable
from dpacc_accounting.pld.amplification import without_amplification

from dpacc.artifacts.progress_chart import Measurement
from dpacc.artifacts.proof import RUN_FILE, adapter_checksums
from dpacc.cli.report.agreement import Agreement, compare
from dpacc.cli.sources import read_record
from dpacc.doctor.finding import Finding
from dpacc.doctor.stated import origin_findings, stated_findings
from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import Metric

FALSE_ALARMS = (0.001, 0.01, 0.1)
"""The rates of false accusations at which attackers are bounded; the middle one is spoken of."""
_POINTS = 12


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What `run.json` says: settings and versions for the record, and where the run stood."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    course: tuple[Measurement, ...] = ()

    @property
    def measured(self) -> tuple[Measurement, ...]:
        """Where held-out quality was measured, in order of steps."""
        return tuple(each for each in self.course if each.quality is not None)


@dataclass(frozen=True, kw_only=True)
class Priced:
    """What releases amount to, and what that means.

    Args:
        claim: their price, with all that voids or qualifies it.
        void: why nothing may be claimed; empty where something is.
        bounds: the most that any attack finds, at each of `FALSE_ALARMS`; empty where it is void.
        from_pair: whether these follow from ε and δ alone, as of a search, which has no curve.
        known_samples: ε against whoever knows every sample, where that is larger.
        agreement: the same ε by other accountants; None where none has an answer.
        silence: why none has.
    """

    claim: Guarantee
    void: tuple[str, ...]
    bounds: tuple[AttackBounds, ...]
    from_pair: bool
    known_samples: float | None
    agreement: Agreement | None
    silence: str

    @property
    def spoken_of(self) -> AttackBounds | None:
        """The most that any attack finds, where one stranger in a hundred is accused."""
        return self.bounds[1] if self.bounds else None


@dataclass(frozen=True, kw_only=True)
class RunFacts(Priced):
    """One run.

    Args:
        name: of its folder.
        record: its ledger.
        findings: the folder's proof, card and adapter, compared with the ledger.
        course: ε after a few steps, with held-out quality; empty where it is void.
        checksums: SHA-256 of the adapter's files that lie in the folder.
        recorded: what `run.json` says.
    """

    name: str
    record: LedgerRecord
    findings: tuple[Finding, ...]
    course: tuple[Measurement, ...]
    checksums: Mapping[str, str]
    recorded: Recorded

    @property
    def plan(self) -> Mapping[str, Any]:
        """What the ledger's first line holds."""
        return self.record.plan

    @property
    def budget(self) -> float | None:
        """The ε that was not to be exceeded, if the plan names one."""
        found = self.plan.get("target_epsilon")
        return None if found is None else float(found)


def gather(
    *,
    ledger: Path,
    delta: float | None = None,
    name: str | None = None,
    settings: Path | None = None,
) -> RunFacts:
    """Read a run's ledger and what lies beside it, and price all of it.

    Args:
        ledger: its ledger, in its folder.
        delta: δ at which ε is stated; the plan's when left out.
        name: what the run is called; its folder's name when left out.
        settings: of a file with what the ledger's own plan lacks.

    Raises:
        LedgerError: the ledger is missing or damaged.
        ValueError: its plan lacks what a statement needs.
        ConfigurationError: `run.json` is damaged.
    """
    record, folder = read_record(path=ledger, settings=settings), ledger.resolve().parent
    require_statable(plan=record.plan, record=record)
    if not record.releases:
        raise ConfigurationError(
            f"{ledger} holds no release: nothing was trained, so there is nothing to report"
        )
    claim = claim_of(plan=record.plan, record=record, delta=delta)
    recorded = read_recorded(path=folder / RUN_FILE)
    price = priced(event=record.event, claim=claim)
    return RunFacts(
        **vars(price),
        name=name or folder.name,
        record=record,
        findings=(
            *stated_findings(folder=folder, record=record),
            *origin_findings(folder=folder, record=record),
        ),
        course=() if price.void else _course(record, claim, recorded.measured),
        checksums=adapter_checksums(folder=folder),
        recorded=recorded,
    )


def priced(*, event: Event, claim: Guarantee) -> Priced:
    """What a claim means to attackers, and what other accountants say of it.

    Args:
        event: all releases.
        claim: their price.
    """
    void = tuple(void_because(claim))
    searched = any(isinstance(each, Selected) for each in nested_events(event))
    if void:
        return Priced(
            claim=claim,
            void=void,
            bounds=(),
            from_pair=searched,
            known_samples=None,
            agreement=None,
            silence="nothing is claimed",
        )
    agreement, silence = _asked(event, claim)
    return Priced(
        claim=claim,
        void=void,
        bounds=_bounds(event, claim),
        from_pair=searched,
        known_samples=_known_samples(event, claim),
        agreement=agreement,
        silence=silence,
    )


def read_recorded(*, path: Path) -> Recorded:
    """What `run.json` says, or nothing where there is none.

    Raises:
        ConfigurationError: it is damaged.
    """
    if not path.exists():
        return Recorded()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Recorded(
            settings={str(name): value for name, value in said["settings"].items()},
            versions={str(name): str(value) for name, value in said["versions"].items()},
            course=tuple(_measurement(each) for each in said["course"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{path} is damaged: restore it from a copy, or move it away to report without "
            "held-out quality and settings"
        ) from None


def _measurement(said: Mapping[str, Any]) -> Measurement:
    quality, metric = said["quality"], said["metric"]
    if metric not in get_args(Metric):
        raise ValueError(f"metric={metric!r}")
    if quality is not None and not math.isfinite(quality):
        raise ValueError(f"quality={quality!r}")
    # What it says of ε is left where it is: the ledger is asked.
    return Measurement(step=int(said["step"]), epsilon=math.nan, quality=quality, metric=metric)


def _asked(event: Event, claim: Guarantee) -> tuple[Agreement | None, str]:
    try:
        return compare(event=event, claim=claim), ""
    except ValueError as silent:
        return None, str(silent)


def _bounds(event: Event, claim: Guarantee) -> tuple[AttackBounds, ...]:
    found = (attack_bounds(event=event, claim=claim, false_positives=a) for a in FALSE_ALARMS)
    return tuple(each for each in found if each is not None)


def _known_samples(event: Event, claim: Guarantee) -> float | None:
    bare = without_amplification(event=event)
    known = epsilon(event=bare, delta=claim.delta, adjacency=claim.adjacency).epsilon
    return None if bare == event or known <= claim.epsilon else known


def _course(
    record: LedgerRecord, claim: Guarantee, measured: Sequence[Measurement]
) -> tuple[Measurement, ...]:
    """ε after a few steps, dense where the curve bends, and held-out quality after some of them.

    The last ε is what is claimed.
    """
    total = (record.last_step or 0) + 1
    marks = {round(total * (k / _POINTS) ** 2) for k in range(1, _POINTS + 1)} - {0}
    shown = {each.step: each for each in _thinned(measured) if each.step <= total}
    return tuple(
        replace(
            shown.get(step, Measurement(step=step, epsilon=math.nan)),
            epsilon=_spent(record, claim, step),
        )
        for step in sorted({0, total, *marks, *shown})
    )


def _spent(record: LedgerRecord, claim: Guarantee, step: int) -> float:
    charged = tuple(each for each in record.releases if each.step < step)
    if len(charged) == len(record.releases):
        return claim.epsilon
    if not charged:
        return 0.0
    event = replace(record, releases=charged).event
    return epsilon(event=event, delta=claim.delta, adjacency=claim.adjacency).epsilon


def _thinned(measured: Sequence[Measurement]) -> list[Measurement]:
    """A few of them, evenly, with the first and the last."""
    if len(measured) <= _POINTS:
        return [*measured]
    last = len(measured) - 1
    return [measured[round(last * k / (_POINTS - 1))] for k in range(_POINTS)]
