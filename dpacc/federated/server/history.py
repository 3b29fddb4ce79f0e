"""What happened in each round, and the books that follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from dpacc_accounting import FederatedGuarantee, price_federation, read_federation

from dpacc.artifacts.kept.appended_lines import AppendedLines
from dpacc.errors import ConfigurationError

ROUNDS_FILE = "rounds.jsonl"
"""Beside a server's `state.json`: a line a round."""
_NOTES = ("void_because", "qualified_by")


@dataclass(frozen=True, kw_only=True)
class ClientBooks:
    """What a client said of its own ledger when it sent an update.

    Args:
        epsilon: ε of all that it has charged.
        delta: δ at which that holds.
        epsilon_budget: the ε that it will never exceed.
        noise_multiplier: σ of its steps.
        sampling_probability: q of its steps.
        steps_charged: how many steps its ledger holds.
        steps_taken: how many of them this round's update was trained on.
        choice_epsilon: ε of a rank that it chose from its data, within `epsilon`; 0 for none.
        unit: its privacy unit.
        void_because: subjects of its ledger's notes after which no ε may be claimed; `epsilon` is
            infinite then.
        qualified_by: subjects of its other notes, which qualify `epsilon`.
    """

    epsilon: float
    delta: float
    epsilon_budget: float
    noise_multiplier: float
    sampling_probability: float
    steps_charged: int
    steps_taken: int
    choice_epsilon: float = 0.0
    unit: str = "example"
    void_because: tuple[str, ...] = ()
    qualified_by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as strict JSON; an infinite ε is the string "inf"."""
        epsilon = self.epsilon if math.isfinite(self.epsilon) else str(self.epsilon)
        notes = {name: [*getattr(self, name)] for name in _NOTES}
        return {**vars(self), "epsilon": epsilon} | notes

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ClientBooks:
        """Read what `to_json` wrote."""
        notes = {name: tuple(document.get(name, ())) for name in _NOTES}
        return cls(**{**document, **notes, "epsilon": float(document["epsilon"])})


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """One round, as the server saw it.

    Args:
        number: from 1.
        asked: the clients that were asked.
        survivors: the clients whose updates arrived whole.
        failed: why the others gave none.
        filtered: the survivors that robust aggregation left out, and why.
        books: what the ledger holds of each client whose update arrived, used or not.
        quality: what the server measured on its own held-out data.
        aggregation_error: how far the average strays from the mean of the clients' updates,
            relative to it; 0 for exact rules.
        bytes_sent: of messages to clients, as they are serialised.
        bytes_received: and back.
        rolled_back: why the adapter before the round was kept; its quality is told then. Nothing
            where the round's was.
    """

    number: int
    asked: tuple[str, ...]
    survivors: tuple[str, ...]
    failed: Mapping[str, str]
    filtered: Mapping[str, str]
    books: Mapping[str, ClientBooks]
    quality: Mapping[str, float]
    aggregation_error: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    rolled_back: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"books": {name: b.to_json() for name, b in self.books.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RoundReport:
        """Read what `to_json` wrote."""
        books = {name: ClientBooks.from_json(each) for name, each in document["books"].items()}
        lists = {name: tuple(document[name]) for name in ("asked", "survivors")}
        return cls(**{**document, **lists, "books": books})


@dataclass(kw_only=True)
class History:
    """All rounds of a federation.

    Args:
        rounds: in order.
        start_quality: what the server measured before the first.
        nodes: the node that bore each client's name first.
        client_level: under client-level privacy, what `dpacc compose` reads. Who took part is then
            a secret of the server's: publish the models, not the rounds.
        expelled: nodes that sent what no honest client sends, and what; they are not asked again.
    """

    rounds: list[RoundReport] = field(default_factory=list)
    start_quality: Mapping[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    client_level: Mapping[str, Any] | None = None
    expelled: dict[int, str] = field(default_factory=dict)
    _most_steps: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _looked_at: int = field(default=0, init=False, repr=False, compare=False)

    def epsilons(self) -> dict[str, float]:
        """Each client's ε, by its own ledger; of one that forgot steps, by the server's count.

        Infinite where a note voids it; `guarantee()` says why, and what else qualifies it.
        """
        forgetful = {n for n, books in self._books().items() if _forgot(books) or _void(books)}
        priced = (
            {each.name: each.server.epsilon for each in self.guarantee().prices}
            if forgetful
            else {}
        )
        return {
            name: max(books[-1].epsilon, priced[name]) if name in forgetful else books[-1].epsilon
            for name, books in self._books().items()
        }

    @property
    def final_accuracy(self) -> float:
        """What the server measured as "accuracy" after the last round.

        Raises:
            ConfigurationError: nothing of that name was measured.
        """
        last = self.rounds[-1].quality if self.rounds else self.start_quality
        if "accuracy" not in last:
            known = ", ".join(last) or "nothing"
            raise ConfigurationError(
                f"the last round's quality names {known}, and no accuracy: give server.train a "
                "measure=, a function of the model that returns {'accuracy': ...}, or read "
                "history.rounds[-1].quality"
            )
        return last["accuracy"]

    @property
    def total_epsilon(self) -> float:
        """There is none: each client's ε is of its own data, and holds against one of two views.

        Raises:
            ConfigurationError: always, with what to read.
        """
        raise ConfigurationError(
            "a federation has no total ε: each client's is of its own records, sums over clients "
            "count nobody, and a largest one hides whose it is; read history.epsilons(), or "
            "history.guarantee().worst_server with its δ, unit and notes"
        )

    @property
    def is_priced(self) -> bool:
        """Whether anything of a client's has left, so that there is something to price."""
        return self.client_level is not None or bool(self._books())

    @property
    def quality(self) -> Mapping[str, float]:
        """What the server measured last."""
        return self.rounds[-1].quality if self.rounds else self.start_quality

    @property
    def rolled_back(self) -> dict[int, str]:
        """The rounds that were given up, by number, and why; each client's ε counts them."""
        return {each.number: each.rolled_back for each in self.rounds if each.rolled_back}

    @property
    def moved(self) -> bool:
        """Whether any round used any client's update, and was not given up."""
        return any(
            set(each.survivors) - set(each.filtered) for each in self.rounds if not each.rolled_back
        )

    def require_moved(self) -> None:
        """Stop with an error where no round brought anything.

        Raises:
            ConfigurationError: saying what became of the clients in the last round.
        """
        if not self.moved:
            last = self.rounds[-1] if self.rounds else None
            why = {} if last is None else last.rolled_back or {**last.filtered, **last.failed}
            raise ConfigurationError(
                f"no client's update was used in any of {len(self.rounds)} rounds, so the adapter "
                f"is as it began; last: {why or 'nobody was asked'}"
            )

    def steps_seen(self, name: str) -> int:
        """The most steps that this client's ledger was ever seen to hold."""
        for report in self.rounds[self._looked_at :]:
            for client, books in report.books.items():
                most = max(self._most_steps.get(client, 0), books.steps_charged)
                self._most_steps[client] = most
        self._looked_at = len(self.rounds)
        return self._most_steps.get(name, 0)

    def name_of(self, node: int) -> str | None:
        """The client that this node is, once it has answered."""
        return next((name for name, bearer in self.nodes.items() if bearer == node), None)

    def learn_name(self, node: int, said: str) -> str:
        """What a client is called: what it says first, unless another node bears that name."""
        known = self.name_of(node)
        if known is None:
            known = said
            while known in self.nodes:
                known = f"{known} (node {node})"
            self.nodes[known] = node
        return known

    def federation(self) -> dict[str, Any]:
        """What `dpacc compose` reads, to price the run anew from what was really done.

        Raises:
            ValueError: no client ever took part.
        """
        if self.client_level is not None:
            return dict(self.client_level)
        books = self._books()
        if not books:
            raise ValueError("no client took part in any round, so there is nothing to price")
        return {
            "level": "example",
            "delta": next(iter(books.values()))[0].delta,
            "clients": [_client(name, known) for name, known in books.items()],
        }

    def guarantee(self) -> FederatedGuarantee:
        """ε of every client, in the server's view and in that of the released models."""
        return price_federation(federation=read_federation(document=self.federation()))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"rounds": [report.to_json() for report in self.rounds]} | self.beside_rounds()

    def beside_rounds(self) -> dict[str, Any]:
        """As plain data, all that does not grow with the rounds."""
        return {
            "start_quality": dict(self.start_quality),
            "nodes": dict(self.nodes),
            "client_level": self.client_level,
            "expelled": {str(node): why for node, why in self.expelled.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> History:
        """Read what `to_json` wrote."""
        rounds = [RoundReport.from_json(each) for each in document["rounds"]]
        known = {name: document[name] for name in ("start_quality", "nodes", "client_level")}
        expelled = {int(node): why for node, why in document.get("expelled", {}).items()}
        return cls(rounds=rounds, expelled=expelled, **known)

    def _books(self) -> dict[str, list[ClientBooks]]:
        found: dict[str, list[ClientBooks]] = {}
        for report in self.rounds:
            for name, books in report.books.items():
                found.setdefault(name, []).append(books)
        return found


def read_history(*, path: Path) -> History:
    """The rounds of a finished run's `history.json`, or of a server's `state.json` until then.

    Raises:
        ValueError, KeyError or TypeError: it is damaged.
        OSError: it cannot be read.
    """
    return history_in(json.loads(path.read_text("utf-8")), rounds=path.with_name(ROUNDS_FILE))


def history_in(document: Mapping[str, Any], *, rounds: AppendedLines | Path) -> History:
    """The rounds that a history, or a server's state of whatever version, tells of.

    Args:
        document: what was written.
        rounds: the lines beside it, where it names some.
    """
    known = document.get("history", document)
    if "rounds" in known:  # all in one file, as a history is, and as states were
        return History.from_json(known)
    lines = AppendedLines(rounds) if isinstance(rounds, Path) else rounds
    return History.from_json({**known, "rounds": lines.take_up(document["rounds"])})


def _client(name: str, books: list[ClientBooks]) -> dict[str, Any]:
    """One client's rounds, told by how many steps it took each time, and of which noise."""
    first = _noise(books[0])
    return {
        "name": name,
        "unit": books[0].unit,
        **first,
        "epsilon_budget": books[-1].epsilon_budget,
        **({"choices": [books[-1].choice_epsilon]} if books[-1].choice_epsilon else {}),
        **{name: [*said] for name in _NOTES if (said := _said(books, name))},
        "schedule": [
            {
                "rounds": sum(1 for _ in same),
                "local_steps": steps,
                **({} if noise == first else noise),
            }
            for (steps, noise), same in groupby(_charges(books))
        ],
    }


def _said(books: list[ClientBooks], name: str) -> tuple[str, ...]:
    """What it ever said: an older copy of a ledger, brought back, may lack a note."""
    return tuple(dict.fromkeys(each for report in books for each in getattr(report, name)))


def _void(books: list[ClientBooks]) -> bool:
    return bool(_said(books, "void_because"))


def _noise(books: ClientBooks) -> dict[str, float]:
    return {
        "sampling_probability": books.sampling_probability,
        "noise_multiplier": books.noise_multiplier,
    }


def _charges(books: list[ClientBooks]) -> Iterator[tuple[int, dict[str, float]]]:
    """By how many steps its ledger grew in each round, and of which noise.

    Steps of which no update arrived may be of the noise before or of the noise now, where the two
    differ: they count as of whatever hides less of both.
    """
    before = books[0]
    for grown, each in zip(_steps(books), books, strict=True):
        lost = grown - each.steps_taken if _noise(each) != _noise(before) else 0
        if lost:
            yield lost, _noise(_least_hidden(before, each))
        yield grown - lost, _noise(each)
        before = each


def _least_hidden(one: ClientBooks, other: ClientBooks) -> ClientBooks:
    return replace(
        one,
        sampling_probability=max(one.sampling_probability, other.sampling_probability),
        noise_multiplier=min(one.noise_multiplier, other.noise_multiplier),
    )


def _steps(books: list[ClientBooks]) -> list[int]:
    """By how much its ledger grew in each round, and no less than what its update was made of.

    A ledger that was brought back from an older copy counts some steps twice as one; the server
    has seen what came of both.
    """
    found, seen = [], 0
    for each in books:
        found.append(max(each.steps_charged - seen, each.steps_taken))
        seen = max(seen, each.steps_charged)
    return found


def _forgot(books: list[ClientBooks]) -> bool:
    return sum(_steps(books)) > books[-1].steps_charged
