"""What a command is asked about: a ledger of what was released, or a plan of what would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

from dpacc_accounting import (
    Event,
    Guarantee,
    LedgerRecord,
    read_ledger,
)
from dpacc_accounting.federation.fields import FieldError, nearest
from dpacc_accounting.ledger.claims import claim_of, void_because

from dpacc.cli.documents import located, read_document
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan

_WORDS = {"clipping", "noise", "unit", "adjacency", "sampling", "correlation"}
_SOLVED = {"noise_multiplier", "steps"}
# Of a run's learning rates, which a file of settings does not hold.
_UNREADABLE = {"workload"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A plan, and the ledger of the run that followed it, if there was one."""

    plan: Mapping[str, Any]
    record: LedgerRecord | None

    @property
    def steps(self) -> int:
        """How many steps were released, or are planned."""
        return len(self.record.releases) if self.record else int(self.plan["steps"])

    @property
    def event(self) -> Event:
        """All that was released, or would be."""
        return self.event_after(steps=self.steps)

    def event_after(self, *, steps: int) -> Event:
        """What the first `steps` of them released, or would."""
        if self.record:
            return replace(self.record, releases=self.record.releases[:steps]).event
        return PrivacyPlan.from_json(self.plan).event(steps=steps)

    def claim(self, *, delta: float | None = None) -> Guarantee:
        """What is claimed, at the plan's δ unless another is asked for, with all that voids it."""
        return claim_of(plan=self.plan, record=self.record, delta=delta)

    def guarantee(self, *, delta: float | None = None) -> Guarantee:
        """What holds, at the plan's δ unless another is asked for.

        Raises:
            ConfigurationError: nothing holds.
        """
        claim = self.claim(delta=delta)
        if faults := void_because(claim):
            raise ConfigurationError(f"this run is NOT private: {'; '.join(faults)}")
        return claim


def read_record(*, path: Path, settings: Path | None = None) -> LedgerRecord:
    """A ledger, its plan completed by the settings in another file, if one is given.

    Raises:
        LedgerError: it is damaged or missing, or the settings contradict it.
        ConfigurationError: the file of settings cannot be read.
    """
    record = read_ledger(path=path)
    if settings is None:
        return record
    document = read_document(path=settings, wanted="a file of settings")
    return record.completed(settings=document)


def read_source(*, path: Path, settings: Path | None = None) -> Source:
    """The ledger, or the plan in YAML or JSON, that `path` holds.

    A plan names the fields of `PrivacyPlan`; one with `target_epsilon` and without
    `noise_multiplier` is calibrated, and may give `epochs` for `steps`. A run's `privacy.json`
    holds its plan under "plan".

    Args:
        path: of the ledger or plan.
        settings: of a file with what a ledger's own plan lacks.

    Raises:
        ConfigurationError: neither, or a plan with a missing, unknown or senseless field.
        LedgerError: a damaged ledger.
    """
    if _is_ledger(path):
        record = read_record(path=path, settings=settings)
        return Source(plan=record.plan, record=record)
    document = read_document(path=path, wanted="a ledger or a plan")
    if isinstance(document.get("plan"), Mapping):
        document = document["plan"]
    if "level" in document:
        raise ConfigurationError(f"{path} describes a federation: price it with 'dpacc compose'")
    with located(path=path):
        return Source(plan=_plan(document).to_json(), record=None)


def _is_ledger(path: Path) -> bool:
    if path.suffix == ".jsonl":
        return True
    try:
        with path.open("rb") as file:
            return file.read(9) == b'{"kind":"'
    except OSError:
        return False


def _plan(document: Mapping[str, Any]) -> PrivacyPlan:
    document = {name: value for name, value in document.items() if value is not None}
    solve = "noise_multiplier" not in document and "target_epsilon" in document
    # A calibrated plan chooses its own noise, and may choose its steps.
    taken = signature(PrivacyPlan.calibrate if solve else PrivacyPlan).parameters
    known = [name for name in taken if name not in _UNREADABLE]
    for key, value in document.items():
        if key not in known:
            raise FieldError(
                f"is not a known field of a plan{nearest(str(key), known)}", where=(str(key),)
            )
        if key == "noise_coefficients":
            if not isinstance(value, list):
                raise FieldError(f"must be a list of numbers, not {value!r}", where=(key,))
        elif key not in _WORDS and not isinstance(value, int | float):
            raise FieldError(f"must be a number, not {value!r}", where=(key,))
    required = [field.name for field in fields(PrivacyPlan) if field.default is MISSING]
    missing = [name for name in required if name not in {*document, *(_SOLVED if solve else ())}]
    if missing:
        raise ConfigurationError(f"the plan lacks {', '.join(missing)}; add them")
    return PrivacyPlan.calibrate(**document) if solve else PrivacyPlan.from_json(document)
