"""One federation, round by round: who took part, what each client spent and gave, what it bought.

Under privacy of whole clients who took part is a secret of the server's, and is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc_accounting import FederatedGuarantee, Guarantee, price_federation, read_federation
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up
from dpacc_accounting.ledger.claims import void_because

from dpacc.artifacts.document.content import Block, Paragraph, Points, Table, Verdict
from dpacc.artifacts.document.content import facts as table_of
from dpacc.cli.dashboard.listed_runs import RunList, Unpriced
from dpacc.cli.dashboard.places import LEDGER, ROUNDS, Place, history_of
from dpacc.cli.documents import located, read_document
from dpacc.cli.report.federation import by_kind, contradicted, quality_table
from dpacc.cli.report.words import promise_of
from dpacc.errors import DpaccError
from dpacc.federated.server.history import History, RoundReport, read_history


@dataclass(frozen=True, kw_only=True)
class FederationView:
    """One federation.

    Args:
        name: as it is called here.
        rounds: what the server saw of each; none where only their price is known.
        quality: what the server measured before the first round and after each, by kind.
        found: ε of every client or course, in the server's view and in that of the models.
        ledgers: what the ledgers cost that lie in the folder, by client, or why it is not known.
        told: the largest ε of a client after each round, as clients' own books say.
        secret: whether who took part may not be shown.
    """

    name: str
    rounds: tuple[RoundReport, ...]
    quality: tuple[Mapping[str, float], ...]
    found: FederatedGuarantee
    ledgers: Mapping[str, Guarantee | Unpriced]
    told: tuple[float, ...]
    secret: bool

    @property
    def contradictions(self) -> list[str]:
        """Ledgers in the folder that say more than the rounds do, or cannot be read."""
        stated = {price.name: price.server.epsilon for price in self.found.prices}
        said: list[str] = []
        for name, ledger in self.ledgers.items():
            if isinstance(ledger, Unpriced):
                said.append(f"{name}: {ledger.why}")
            else:
                said += contradicted(name=name, ledger=ledger, told=stated[name])
        return said


def federation_view(*, place: Place, runs: RunList) -> FederationView | str:
    """Read and price a federation, or say why that cannot be.

    Args:
        place: its folder.
        runs: by which clients' ledgers that lie there are priced.
    """
    try:
        history = _history(place.path)
        found = price_federation(
            federation=read_federation(document=_document(place.path, history))
        )
        quality = () if history is None else _quality(history)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DpaccError) as refusal:
        return f"its rounds cannot be read or priced: {refusal}"
    secret = found.level == "client"
    return FederationView(
        name=place.name,
        rounds=() if history is None or secret else tuple(history.rounds),
        quality=quality,
        found=found,
        ledgers=_ledgers(place.path, found, runs),
        told=() if history is None or secret else _told(history, found),
        secret=secret,
    )


def _history(folder: Path) -> History | None:
    path = history_of(folder)
    return None if path is None else read_history(path=path)


def _document(folder: Path, history: History | None) -> Mapping[str, Any]:
    if history is not None:
        return history.federation()
    with located(path=folder / ROUNDS):
        return read_document(path=folder / ROUNDS)


def _quality(history: History) -> tuple[Mapping[str, float], ...]:
    return by_kind([history.start_quality, *(each.quality for each in history.rounds)])


def _told(history: History, found: FederatedGuarantee) -> tuple[float, ...]:
    """Never less than after an earlier round, nor in the end than the price of all of them."""
    told, most = [], 0.0
    for at in range(1, len(history.rounds) + 1):
        so_far = History(rounds=history.rounds[:at], nodes=history.nodes).epsilons()
        most = max([most, *so_far.values()])
        told.append(most)
    return (*told[:-1], max(most, found.worst_server.server.epsilon))


def _ledgers(
    folder: Path, found: FederatedGuarantee, runs: RunList
) -> dict[str, Guarantee | Unpriced]:
    named = {price.name: folder / price.name / LEDGER for price in found.prices}
    inside = {
        name: path
        for name, path in named.items()
        if path.is_file() and path.resolve().is_relative_to(folder.resolve())
    }
    return {name: runs.price(path) for name, path in inside.items()}


def verdict(view: FederationView) -> Verdict:
    """The largest ε of a client against whoever gets the models, and what is amiss."""
    claim, worst = view.found.worst_released.released, view.found.worst_released.name
    void = [note.text for note in view.found.told if note.voids] or void_because(claim)
    if void:
        headline = "This federation is NOT private: of at least one client no ε may be claimed."
        return Verdict(standing="broken", headline=headline, reasons=tuple(void))
    if view.contradictions:
        headline = "Do not rely on this federation's ε: something contradicts it."
        return Verdict(standing="broken", headline=headline, reasons=tuple(view.contradictions))
    beside = [f"{name} spent more than its budget" for name in view.found.over_budget]
    beside += [note.text for note in view.found.told]
    return Verdict(
        standing="qualified" if beside else "holds",
        headline=f"After {len(view.rounds)} rounds it keeps {promise_of(claim)} of any client, "
        f"against whoever gets its models; the largest ε is that of {worst}."
        if view.rounds
        else f"It keeps {promise_of(claim)}, against whoever gets its models.",
        conditions=f"Neighbours: {claim.adjacency}. Sampling and who is counted: below. Method: "
        f"{METHOD_NAMES.get(claim.method, claim.method)}, an upper bound. Against the server "
        f"itself: {_epsilon(view.found.worst_server.server)}.",
        reasons=tuple(beside),
    )


def client_table(view: FederationView) -> Table:
    """Each client's ε in both views, by its own ledger where it lies here, and what it gave."""
    stated = view.found.worst_released.released
    rows = tuple(
        (
            price.name if price.count == 1 else f"{price.name} (×{price.count:,})",
            _epsilon(price.server),
            _epsilon(price.released),
            "none" if price.epsilon_budget is None else f"{price.epsilon_budget:g}",
            _own(view.ledgers.get(price.name)),
            price.server.unit,
            contribution(view, price.name),
        )
        for price in (*view.found.overlaps, *view.found.prices)
    )
    return Table(
        caption=f"ε of each client at δ = {rounded_up(stated.delta)}, {stated.adjacency}, "
        f"{METHOD_NAMES.get(stated.method, stated.method)}, upper bounds; and what it gave",
        columns=(
            "client",
            "against the server",
            "against who gets models",
            "budget",
            "by its own ledger",
            "unit",
            "contribution",
        ),
        rows=rows,
    )


def contribution(view: FederationView, name: str) -> str:
    """In how many rounds its update was used, and its share of all steps that were used."""
    if not view.rounds:
        return "not shown" if view.secret else "not known"
    used = [_used_steps(each) for each in view.rounds]
    total = sum(sum(each.values()) for each in used)
    own = sum(each.get(name, 0) for each in used)
    rounds = sum(name in each for each in used)
    share = f"{own / total:.0%}" if total else "none"
    return f"{rounds} of {len(used)} rounds, {share} of steps"


def _used_steps(each: RoundReport) -> dict[str, int]:
    return {
        name: each.books[name].steps_taken
        for name in each.survivors
        if name not in each.filtered and name in each.books
    }


def round_blocks(view: FederationView) -> list[Block]:
    """Who was asked, whose update arrived, and who was left out and why, the last round first."""
    if view.secret:
        words = "Who took part is a secret of the server's: what is promised rests on it."
        return [Paragraph(words=words)]
    if not view.rounds:
        return [Paragraph(words="The folder holds no record of its rounds.")]
    rows = tuple(
        (
            f"{each.number}",
            ", ".join(each.asked),
            ", ".join(each.survivors) or "none",
            _reasons(each.filtered),
            _reasons(each.failed),
        )
        for each in reversed(view.rounds)
    )
    return [
        Table(
            caption="Rounds, the last one first",
            columns=("round", "asked", "update arrived", "filtered", "failed"),
            rows=rows,
        )
    ]


def quality_blocks(view: FederationView) -> list[Block]:
    """Accuracy of each kind before the first round and after each."""
    if not view.quality:
        return [Paragraph(words="Nothing was measured on held-out data.")]
    return [
        quality_table(view.quality, caption="Held-out quality by kind"),
        Paragraph(words="The held-out data is not protected by the promise."),
    ]


def assumption_blocks(view: FederationView) -> list[Block]:
    """Under what the prices hold."""
    said = tuple(("It holds if", each) for each in view.found.assumptions)
    facts = table_of("What is protected", [("level", f"a whole {view.found.level}"
                     if view.secret else view.found.level)])  # fmt: skip
    return [facts, *([Points(points=said)] if said else [])]


def _reasons(said: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in said.items()) or "none"


def _own(ledger: Guarantee | Unpriced | None) -> str:
    if ledger is None:
        return "not here"
    return "has no price" if isinstance(ledger, Unpriced) else _epsilon(ledger)


def _epsilon(claim: Guarantee) -> str:
    if not math.isfinite(claim.epsilon):
        return "none holds"
    return f"ε = {rounded_up(claim.epsilon, digits=6)}"
