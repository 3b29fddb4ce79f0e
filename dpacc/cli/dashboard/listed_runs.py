"""All runs as they are listed: state, steps, ε spent of each one's own budget, quality.

At first sight, what runs recorded; then ledger after ledger is checked and priced, as many as a
time allows, and what contradicts its own record is said to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpacc_accounting import Guarantee, read_ledger
from dpacc_accounting.guarantee import Note
from dpacc_accounting.ledger.claims import void_because
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.kept.metrics import METRICS_FILE
from dpacc.artifacts.progress_chart import Measurement
from dpacc.artifacts.proof import RUN_FILE
from dpacc.cli.dashboard.first_sight import PROOF_FILE, FirstSight, first_sight
from dpacc.cli.dashboard.kept import Kept
from dpacc.cli.dashboard.places import Place
from dpacc.cli.dashboard.prices import price_of
from dpacc.cli.dashboard.run_state import State, locked_files, state_of

_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Unpriced:
    """Why a ledger has no price: it is damaged, or what it holds cannot be priced."""

    why: str
    damaged: bool = False


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run.

    Args:
        name: as it is called here.
        ledger: its ledger.
        state: whether it goes on.
        steps: how many are charged.
        planned: how many were to be.
        claim: what it spent, with all that is assumed; None where that is not known yet.
        priced: whether `claim` is the ledger's price, and not what the run recorded of itself.
        budget: the ε that it was not to exceed.
        sampling: how units are drawn, as its plan says.
        quality: what was measured last on held-out data.
        torn: whether its last line is cut short.
        problem: why its ledger cannot be read or priced, or what its record contradicts.
    """

    name: str
    ledger: Path
    state: State
    steps: int = 0
    planned: int | None = None
    claim: Guarantee | None = None
    priced: bool = False
    budget: float | None = None
    sampling: str = ""
    quality: Measurement | None = None
    torn: bool = False
    problem: str = ""

    @property
    def void(self) -> list[str]:
        """Why no ε may be claimed, if none may."""
        return [] if self.claim is None else void_because(self.claim)

    @property
    def left(self) -> float | None:
        """The budget less what is spent, never below 0; None where one of them is not known."""
        if self.budget is None or self.claim is None:
            return None
        return max(self.budget - self.claim.epsilon, 0.0)

    def to_json(self) -> dict[str, Any]:
        """As strict JSON can hold it."""
        stated = {} if self.claim is None else self.claim.to_json()
        measured = self.quality
        return {
            "name": self.name,
            "ledger": str(self.ledger),
            "state": self.state,
            "steps": self.steps,
            "planned_steps": self.planned,
            **({"epsilon": None} | stated),
            "priced_from_ledger": self.priced,
            "sampling": self.sampling,
            "budget_epsilon": self.budget,
            "left_epsilon": self.left,
            "quality": None if measured is None else measured.quality,
            "metric": None if measured is None else measured.metric,
            "quality_after_step": None if measured is None else measured.step,
            "torn": self.torn,
            "problem": self.problem,
        }


class RunList:
    """The runs of some places, read anew where their files changed."""

    def __init__(self) -> None:
        self._sights: Kept[FirstSight | str] = Kept()
        self._prices: Kept[Guarantee | Unpriced] = Kept()

    def listed(self, *, places: Iterable[Place], seconds: float) -> list[ListedRun]:
        """All runs, of which unpriced ones are priced until so many seconds have passed.

        Args:
            places: their ledgers, in the order in which they are priced.
            seconds: 0 prices none; those priced before stay priced.
        """
        end, locked = time.monotonic() + seconds, locked_files()
        found = []
        for place in places:
            run = self._at_first_sight(place, locked)
            late = time.monotonic() >= end
            price = self._prices.get([run.ledger]) if late else self.price(run.ledger)
            found.append(run if price is None else _with_price(run, price))
        return found

    def price(self, ledger: Path) -> Guarantee | Unpriced:
        """What a ledger costs, or why it cannot be said."""
        return self._prices.read([ledger], lambda: _price(ledger))

    def one(self, place: Place) -> ListedRun:
        """One run, checked and priced."""
        run = self._at_first_sight(place, locked_files())
        return _with_price(run, self.price(run.ledger))

    def _at_first_sight(self, place: Place, locked: frozenset[int] | None) -> ListedRun:
        folder = place.path.parent
        beside = (METRICS_FILE, RUN_FILE, PROOF_FILE)
        watched = [place.path, *(folder / each for each in beside)]
        sight = self._sights.read(watched, lambda: _sight(place.path))
        if isinstance(sight, str):
            return ListedRun(name=place.name, ledger=place.path, state="damaged", problem=sight)
        planned = None if sight.searched else _whole(sight.plan.get("steps"))
        try:
            state = state_of(
                ledger=place.path, charged=sight.steps_charged, planned=planned, locked=locked
            )
        except OSError as gone:
            problem = f"cannot read its ledger: {gone.strerror}"
            return ListedRun(name=place.name, ledger=place.path, state="damaged", problem=problem)
        return ListedRun(
            name=place.name,
            ledger=place.path,
            state=state,
            steps=sight.steps_charged,
            planned=planned,
            claim=sight.recorded,
            budget=_number(sight.plan),
            sampling=str(sight.plan.get("sampling", "unknown")),
            quality=sight.measured[-1] if sight.measured else None,
            torn=sight.torn,
            problem=_voided(sight.notes) if sight.recorded is None else "",
        )


def _sight(ledger: Path) -> FirstSight | str:
    try:
        return first_sight(ledger=ledger)
    except OSError as failure:
        return f"cannot read its ledger: {failure.strerror}"
    except (ValueError, KeyError, TypeError):
        return "its ledger is damaged or torn in its first line: dpacc spend says where"


def _price(ledger: Path) -> Guarantee | Unpriced:
    try:
        return price_of(read_ledger(path=ledger))
    except LedgerError as damage:
        return Unpriced(why=str(damage), damaged=True)
    except ValueError as refusal:
        return Unpriced(why=str(refusal))


def _with_price(run: ListedRun, price: Guarantee | Unpriced) -> ListedRun:
    """The ledger's word in place of the record's, which is contradicted where it is less."""
    if isinstance(price, Unpriced):
        state: State = "damaged" if price.damaged else run.state
        return replace(run, state=state, claim=None, priced=False, problem=price.why)
    recorded = math.inf if run.claim is None else run.claim.epsilon
    less = recorded < price.epsilon * (1 - _SAME)
    problem = "what the run recorded of itself is less than its ledger's ε" if less else ""
    return replace(run, claim=price, priced=True, problem=problem)


def _voided(notes: Iterable[Note]) -> str:
    return "; ".join(f"NOT private: {each.text}" for each in notes if each.voids)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _number(plan: Mapping[str, Any]) -> float | None:
    value = plan.get("target_epsilon")
    return float(value) if isinstance(value, int | float) else None
