"""The report of a federation: every client's ε, against its server and against everybody else.

Prices come from `rounds.yaml`, as `dpacc compose` prices it. Where a client's own ledger lies in
the folder, it is priced too, and must not charge more.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc_accounting import FederatedGuarantee, Guarantee, price_federation, read_federation
from dpacc_accounting.attacks.tradeoff import advantage_bound, detection_bound
from dpacc_accounting.events.descriptions import described
from dpacc_accounting.federation.guarantees import Price
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up
from dpacc_accounting.ledger.claims import AttackBounds, void_because

from dpacc.artifacts.document.content import (
    Block,
    Commands,
    Document,
    Heading,
    Paragraph,
    Points,
    Table,
    Verdict,
)
from dpacc.artifacts.document.content import facts as table_of
from dpacc.cli.documents import located, read_document
from dpacc.cli.report import sections
from dpacc.cli.report.gathered import FALSE_ALARMS, Priced, RunFacts, gather
from dpacc.cli.report.words import TERMS, conditions_of, how_strongly, promise_of, warned, weak
from dpacc.errors import ConfigurationError

ROUNDS = "rounds.yaml"
_HISTORY = "history.json"
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class FederationFacts:
    """A federation.

    Args:
        name: of its folder.
        found: ε of every client, or course, in both views.
        ledgers: of those clients whose ledgers lie in the folder, priced.
        quality: what the server measured after each round, by kind; empty where it is not known.
    """

    name: str
    found: FederatedGuarantee
    ledgers: Mapping[str, RunFacts]
    quality: tuple[Mapping[str, float], ...]

    @property
    def worst(self) -> Price:
        """The client with the largest ε for whoever gets the models."""
        return self.found.worst_released

    @property
    def stated(self) -> Priced:
        """What whoever gets the models is promised of the worst client's units."""
        claim = self.worst.released
        ledger = self.ledgers.get(self.worst.name)
        if ledger is not None and _alike(ledger.claim.epsilon, claim.epsilon):
            return ledger
        return _by_pair(claim)


def gather_federation(*, rounds: Path) -> FederationFacts:
    """Read and price a federation's rounds, and the ledgers beside them.

    Args:
        rounds: what `dpacc compose` reads, in the federation's folder.

    Raises:
        ConfigurationError: a file is damaged.
        LedgerError: a client's ledger is.
        ValueError: what was done cannot be priced.
    """
    folder = rounds.resolve().parent
    with located(path=rounds):
        federation = read_federation(document=read_document(path=rounds))
    found = price_federation(federation=federation)
    named = {price.name: folder / price.name / "ledger.jsonl" for price in found.prices}
    return FederationFacts(
        name=folder.name,
        found=found,
        ledgers={
            name: gather(ledger=path, delta=found.prices[0].released.delta, name=name)
            for name, path in named.items()
            if path.resolve().is_relative_to(folder) and path.is_file()
        },
        quality=_quality(folder / _HISTORY),
    )


def _quality(path: Path) -> tuple[Mapping[str, float], ...]:
    if not path.exists():
        return ()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return by_kind([said["start_quality"], *(each["quality"] for each in said["rounds"])])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{path} is damaged: restore it from a copy, or move it away"
        ) from None


def by_kind(measured: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, float], ...]:
    """Held-out quality of each kind, where any was measured: before the first round, after each.

    Raises:
        ValueError, TypeError or AttributeError: something is no number of a kind.
    """
    return tuple(
        {str(kind): float(share) for kind, share in each.items()} for each in measured if each
    )


def kinds_of(quality: Iterable[Mapping[str, float]]) -> list[str]:
    """All kinds of held-out data, in order."""
    return [*dict.fromkeys(kind for each in quality for kind in each)]


def quality_table(quality: Sequence[Mapping[str, float]], *, caption: str) -> Table:
    """Each kind's quality before the first round and after each."""
    kinds = kinds_of(quality)
    rows = tuple(
        (f"{number}", *(f"{each[kind]:.1%}" if kind in each else "–" for kind in kinds))
        for number, each in enumerate(quality)
    )
    return Table(caption=caption, columns=("round", *kinds), rows=rows)


def _by_pair(claim: Guarantee) -> Priced:
    """What (ε, δ) alone says about attackers: rounds have no one trade-off curve here."""
    void = tuple(void_because(claim))
    advantage = 1.0 if void else advantage_bound(guarantee=claim)
    return Priced(
        claim=claim,
        void=void,
        bounds=()
        if void
        else tuple(
            AttackBounds(alarms, detection_bound(guarantee=claim, false_alarms=alarms), advantage)
            for alarms in FALSE_ALARMS
        ),
        from_pair=True,
        known_samples=None,
        agreement=None,
        silence="the rounds were priced by dpacc alone",
    )


def report_of_federation(*, facts: FederationFacts) -> Document:
    """All that is to be said of a federation, in order."""
    verdict = _verdict(facts)
    return Document(
        title="Privacy report",
        subtitle=f"{facts.name}, a federation",
        verdict=verdict,
        first_page=(_first_page(facts, verdict), Heading(level=2, words="Words used here"), TERMS),
        body=(
            *warned(verdict),
            *_prices(facts),
            *sections.attackers(facts.stated),
            *_opinions(facts),
            *_measured(facts),
            *_ledgers(facts),
            *_limits(facts),
            *_checks(facts),
        ),
        claims=tuple(
            (f"{price.name}, {view}", claim)
            for price in (*facts.found.overlaps, *facts.found.prices)
            for view, claim in (("server", price.server), ("released", price.released))
        ),
    )


def _verdict(facts: FederationFacts) -> Verdict:
    found, claim = facts.found, facts.worst.released
    wrong = [*_contradictions(facts)]
    void = [note.text for note in found.told if note.voids]
    if void or void_because(claim):
        return Verdict(
            standing="broken",
            headline="This federation is NOT private: of at least one client no ε may be claimed.",
            reasons=(*(void or void_because(claim)), *wrong),
        )
    if wrong:
        return Verdict(
            standing="broken",
            headline="Do not rely on this federation's ε: something contradicts it.",
            reasons=tuple(wrong),
        )
    over = [f"{name} spent more than its budget" for name in found.over_budget]
    beside = (*over, *weak(facts.stated), *(note.text for note in found.told if not note.voids))
    return Verdict(
        standing="qualified" if beside else "holds",
        headline=f"This federation keeps {promise_of(claim)} of any client, against whoever gets "
        f"its models; the largest ε is that of {facts.worst.name}.",
        conditions=f"{conditions_of(claim)} {_servers_view(facts)}",
        reasons=beside,
    )


def _servers_view(facts: FederationFacts) -> str:
    worst = facts.found.worst_server
    if math.isinf(worst.server.epsilon):
        return "The server itself sees what has no noise yet: no promise holds against it."
    return f"Against the server, which sees every message: ε = {rounded_up(worst.server.epsilon)}."


def _contradictions(facts: FederationFacts) -> Iterator[str]:
    """Ledgers that charge more than the rounds tell, are void, or are contradicted themselves."""
    stated = {price.name: price.server.epsilon for price in facts.found.prices}
    for name, ledger in facts.ledgers.items():
        yield from contradicted(name=name, ledger=ledger.claim, told=stated[name])
        if ledger.agreement is not None and not ledger.agreement.holds:
            yield f"{name}: another accountant disagrees with its ledger's ε"


def contradicted(*, name: str, ledger: Guarantee, told: float) -> Iterator[str]:
    """What a client's ledger says beyond the ε that the rounds tell of against the server."""
    void = void_because(ledger)
    if void and math.isfinite(told):
        yield f"{name}: its ledger says that it is NOT private: {'; '.join(void)}"
    elif ledger.epsilon > told * (1 + _SAME):
        yield (
            f"{name}: its ledger charges ε = {rounded_up(ledger.epsilon)}, and the rounds tell of "
            f"{rounded_up(told)} alone"
        )


def _first_page(facts: FederationFacts, verdict: Verdict) -> Points:
    unit, clients = facts.worst.released.unit, sum(p.count for p in facts.found.prices)
    whole = facts.found.level == "client"
    protected = (
        "Each client as a whole: whether it took part at all."
        if whole
        else f"Each {unit} in the data of each of {clients} clients: whether it was there at all."
    )
    return Points(
        points=(
            ("What was to be protected", protected),
            (
                "From whom",
                "everybody who gets the models, and, where an ε stands below for it, the server, "
                "which sees every message. Not from whoever runs a client's own machine, nor does "
                "it hide from the server who took part when.",
            ),
            ("How strongly, for the worst client", how_strongly(facts.stated, verdict)),
            (
                "What is not protected",
                "what a client does with its data elsewhere; other federations and runs on the "
                "same data, whose costs add up; held-out data; and all that is listed further on.",
            ),
            ("Who may read this", "It names clients, and tells what each of them took part in."),
        )
    )


def _prices(facts: FederationFacts) -> list[Block]:
    found = facts.found
    stated = facts.worst.released
    rows = tuple(
        (
            price.name if price.count == 1 else f"{price.name} (×{price.count:,})",
            _epsilon(price.server),
            _epsilon(price.released),
            "none" if price.epsilon_budget is None else f"{price.epsilon_budget:g}",
            price.server.unit,
        )
        for price in (*found.overlaps, *found.prices)
    )
    return [
        Heading(level=2, words="What each client is promised"),
        table_of(
            "Under which every ε below is meant",
            [
                ("δ", rounded_up(stated.delta)),
                ("adjacency", f"{stated.adjacency}"),
                ("method", METHOD_NAMES.get(stated.method, stated.method)),
                ("level", found.level),
            ],
        ),
        Table(
            caption="ε of each client, upper bounds",
            columns=("client", "against the server", "against who gets models", "budget", "unit"),
            rows=rows,
        ),
        *([Points(points=tuple(("It holds if", each) for each in found.assumptions))]
          if found.assumptions else []),
    ]  # fmt: skip


def _opinions(facts: FederationFacts) -> list[Block]:
    head = Heading(level=2, words="What was done, and its price from independent code")
    if not facts.ledgers:
        words = "None was asked: no client's ledger lies in the folder."
        return [head, Paragraph(words=words)]
    blocks: list[Block] = [head]
    for name, ledger in facts.ledgers.items():
        blocks.append(Heading(level=3, words=f"{name}, by its ledger"))
        done = described(event=ledger.record.event, unit=ledger.claim.unit)
        blocks.append(Paragraph(words=f"What its ledger charges: {done}."))
        blocks += sections.second_opinion(ledger)[1:]
    return blocks


def _measured(facts: FederationFacts) -> list[Block]:
    head = Heading(level=2, words="What the privacy bought: quality by round")
    if not facts.quality:
        return [head, Paragraph(words="The folder holds no measurement on held-out data.")]
    caption = "What the server measured on held-out data of its own, before and after rounds"
    return [
        head,
        quality_table(facts.quality, caption=caption),
        Paragraph(words="The held-out data is not protected by the promise."),
    ]


def _ledgers(facts: FederationFacts) -> list[Block]:
    rows = [(f"{name}, ledger, hash of its last line", each.record.head)
            for name, each in facts.ledgers.items()]  # fmt: skip
    head = Heading(level=2, words="Hashes")
    if not rows:
        return [head, Paragraph(words="No client's ledger lies in the folder.")]
    return [head, table_of("The clients' ledgers", rows)]


def _limits(facts: FederationFacts) -> list[Block]:
    first = next(iter(facts.ledgers.values()), None)
    points = () if first is None else sections.limits_of(first)
    return [
        Heading(level=2, words="What is not covered, and who is trusted"),
        Points(
            points=(
                *points,
                (
                    "Trusted: each client's machine",
                    "whoever administers it reads that client's data.",
                ),
                (
                    "Trusted: what clients say",
                    "the rounds are priced by what each client said of its ledger; ledgers beside "
                    "them are priced anew, and neither is signed.",
                ),
                (
                    "The server",
                    "learns who took part in which round, how long each took, and what each "
                    "client's books say.",
                ),
            )
        ),
    ]


def _checks(facts: FederationFacts) -> list[Block]:
    place = shlex.quote(facts.name)
    lines = [("price the rounds anew", f"dpacc compose {place}/{ROUNDS}")]
    for name in facts.ledgers:
        ledger = f"{place}/{shlex.quote(name)}"
        lines += [(f"price {name}'s ledger", f"dpacc spend {ledger}"),
                  (f"ask other accountants of {name}", f"dpacc verify {ledger}")]  # fmt: skip
    return [Heading(level=2, words="How to check all of it"), Commands(lines=tuple(lines))]


def _epsilon(claim: Guarantee) -> str:
    return rounded_up(claim.epsilon) if math.isfinite(claim.epsilon) else "none holds"


def _alike(one: Any, other: Any) -> bool:
    return math.isfinite(other) and math.isclose(one, other, rel_tol=_SAME)
