"""What a client's records have cost in earlier phases, each with noise and a ledger of its own.

Noise is sized for a number of records and of rounds. Where an owner adds some, the next phase
begins: a new ledger in a folder of its own, under one ε for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpacc_accounting import Adjacency, Guarantee, LedgerRecord, read_ledger
from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError
from dpacc.federated.clients.last_update import LastUpdate
from dpacc.federated.requests import Standstill, run_of_request
from dpacc.federated.settings import DPSettings
from dpacc.plan import PrivacyPlan

_SUBJECT = "earlier-phases"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase that is over.

    Args:
        epsilon: ε of its whole plan, and of a rank's choice, at its share of δ.
        choice: ε of that choice alone; 0 for none.
        steps: how many its ledger holds.
        run: the server's run that it answered last; empty for none.
        notes: what qualifies its ε.
    """

    epsilon: float
    choice: float
    steps: int
    run: str
    notes: tuple[Note, ...]


class EarlierPhases:
    """The phases before the one that is on, which together never cost more than one ε at one δ.

    Phase k has δₖ = δ/2ᵏ: it is priced there with its whole plan, however much of it was spent, and
    the last one's noise is sized for ε − Σ εₖ at its own share. ε and δ are added, which holds
    however a phase follows from what earlier ones released (basic composition of adaptively chosen
    mechanisms; Rogers, Roth, Ullman & Vadhan, arXiv 1605.08294); a unit that was there in one
    phase only pays that one.

    Args:
        folders: of the earlier phases, the first one first.
        dp: the client's own budget, for all phases.

    Raises:
        ConfigurationError: a phase has no ledger, is of another unit, is not private, or nothing
            is left of ε.
        StoppedError: one of them failed among its records, and its owner has not looked yet.
    """

    def __init__(self, folders: Sequence[Path], *, dp: DPSettings) -> None:
        for folder in folders:
            Standstill(folder).refuse_to_go_on()
        self._whole = dp
        self._phases = [
            _phase(folder, delta=dp.delta / 2**number, unit=dp.unit_field or "example")
            for number, folder in enumerate(folders, start=1)
        ]
        _require_first(self._phases, folders=folders)
        self.epsilon = math.fsum(each.epsilon for each in self._phases)
        if self.epsilon >= dp.epsilon:
            raise ConfigurationError(
                f"earlier phases cost epsilon={self.epsilon:.4g} and this client has "
                f"{dp.epsilon:g} for all of them; give it more, or end here"
            )

    @property
    def left(self) -> DPSettings:
        """What the phase that is on may spend."""
        if not self._phases:
            return self._whole
        epsilon = math.nextafter(self._whole.epsilon - self.epsilon, 0.0)
        delta = self._whole.delta / 2 ** (len(self._phases) + 1)
        return replace(self._whole, epsilon=epsilon, delta=delta)

    @property
    def note(self) -> Note | None:
        """What the ledger of the phase that is on must say."""
        if not self._phases:
            return None
        return Note(
            _SUBJECT,
            f"earlier phases ({len(self._phases)}) on records of the same owner cost ε = "
            f"{self.epsilon:.6g} more, of which this ledger knows nothing: merge their ledgers",
        )

    def added_to(self, spent: Guarantee) -> Guarantee:
        """What all phases promise together, at the client's own δ."""
        if not self._phases:
            return spent
        notes = [note for each in self._phases for note in each.notes]
        total = self.epsilon + spent.epsilon
        return replace(spent, epsilon=total, delta=self._whole.delta, slack=total).noted(notes)

    def steps_in(self, run: str) -> int:
        """How many of their steps this run's server has seen."""
        return sum(each.steps for each in self._phases if each.run == run)

    def choices_in(self, run: str) -> float:
        """ε of the ranks that were chosen while this run went on."""
        return math.fsum(each.choice for each in self._phases if each.run == run)


def _require_first(phases: Sequence[Phase], *, folders: Sequence[Path]) -> None:
    """What is named first was preceded by none, as its ledger would say."""
    if any(note.subject == _SUBJECT for each in phases[:1] for note in each.notes):
        raise ConfigurationError(
            f"{folders[0] / 'ledger.jsonl'} says that phases came before it, which are not counted "
            "here; name them all, the first one first"
        )


def _phase(folder: Path, *, delta: float, unit: str) -> Phase:
    path = folder / "ledger.jsonl"
    if not path.exists():
        raise ConfigurationError(
            f"{path} is not there: a phase begins after the one before it has a ledger, which must "
            "stay where it is"
        )
    ledger = read_ledger(path=path)
    plan = PrivacyPlan.from_json(ledger.plan)
    _require_whole(ledger, plan, path=path, unit=unit)
    choice = _choice(folder)
    return Phase(
        epsilon=plan.guarantee(delta=delta).epsilon + choice,
        choice=choice,
        steps=len(ledger.releases),
        run=run_of_request(LastUpdate(folder).request),
        notes=ledger.notes,
    )


def _require_whole(ledger: LedgerRecord, plan: PrivacyPlan, *, path: Path, unit: str) -> None:
    """Its whole plan bounds what it may have cost, and can be added to what follows."""
    if any(note.voids for note in ledger.notes):
        raise ConfigurationError(f"{path} is of a phase that was not private; begin no other")
    if (plan.unit, plan.adjacency) != (unit, Adjacency.ADD_OR_REMOVE):
        raise ConfigurationError(
            f"{path} protects one {plan.unit}, and this phase one {unit}: their ε cannot be added; "
            "keep unit_field as it was"
        )
    if len(ledger.releases) > plan.steps:
        raise ConfigurationError(f"{path} holds more steps than its plan; begin no other phase")


def _choice(folder: Path) -> float:
    """ε of a rank's choice, which has a ledger of its own."""
    path = folder / "rank_ledger.jsonl"
    return float(read_ledger(path=path).plan["epsilon"]) if path.exists() else 0.0


def require_same_size(size: int, *, ledger: Path, data: str) -> None:
    """Refuse records of which there are more or fewer than the phase that is on was begun for.

    Raises:
        ConfigurationError: with both numbers, and both remedies.
    """
    if not ledger.exists():
        return
    plan = read_ledger(path=ledger).plan
    if plan["dataset_size"] != size:
        raise ConfigurationError(
            f"{data} holds {size} of its unit, {plan['unit']}, and {ledger} was begun for "
            f"{plan['dataset_size']}: bring back the file as it was until this phase is over, or "
            "begin the next phase, whose ε holds for all"
        )
