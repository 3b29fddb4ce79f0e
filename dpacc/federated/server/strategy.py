"""The federation as a Flower strategy: who is asked, what is accepted, how it becomes one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import INFO
from typing import Any, Generic, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import (
    Aggregate,
    Aggregation,
    Gathering,
    Streaming,
    Together,
)
from dpacc.federated.aggregation.central_noise import CentralNoise
from dpacc.federated.aggregation.factors import CORRECTION
from dpacc.federated.aggregation.rollback import Rollback
from dpacc.federated.ranks.round_ranks import ROUND_RANK, FirstRanks, ranks_of_update
from dpacc.federated.requests import SEEN
from dpacc.federated.server.history import ClientBooks, History, RoundReport
from dpacc.federated.server.replies import Reply, read_reply
from dpacc.federated.settings import PrivacyBudget
from dpacc.federated.updates.layout import LARGEST, Arrays, to_record
from dpacc.federated.updates.packing import Packing, wire_bytes
from dpacc.layers.dynamic_rank import DrawnRanks

Taken = TypeVar("Taken")


@dataclass(kw_only=True)
class Answers(Generic[Taken]):
    """What came of one round's replies, by client.

    Args:
        taken: what is used of each reply that holds, in the order of the nodes.
        failed: why there is none of the others.
        books: what the ledger holds of each client whose reply holds, used or not.
        names: of the nodes whose replies hold.
    """

    taken: dict[str, Taken] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    books: dict[str, ClientBooks] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


class FederatedLoRA(FedAvg):
    """Example-level private federation: every client's update is private before it arrives.

    What the server does with it is post-processing. Clients are never asked to evaluate: what they
    measured on private data would leave without noise.

    Args:
        start: the adapter before the first round.
        aggregation: from updates to the next adapter.
        budget: the most that a client may spend, and the δ that all share; None where the server
            adds the noise, and clients keep no books.
        clients: how many must be connected before the first round.
        sampling_rate: the chance with which each connected client is asked in a round, by a coin
            of the operating system.
        history: the rounds so far; this one goes on after them.
        connect_timeout: seconds that clients have to connect in.
        measure: what the server measures on data of its own.
        after_round: keeps what a restart needs.
        ranks: at which all train in a round, if not at every rank always.
        rollback: when the adapter before a round is kept.
    """

    def __init__(
        self,
        *,
        start: Arrays,
        aggregation: Aggregation,
        budget: PrivacyBudget | None,
        clients: int,
        sampling_rate: float,
        history: History,
        connect_timeout: float,
        measure: Callable[[Arrays], Mapping[str, float]],
        after_round: Callable[[Arrays, History], None],
        ranks: DrawnRanks | None = None,
        rollback: Rollback | None = None,
    ) -> None:
        super().__init__(min_available_nodes=clients)
        self.arrays = start
        self._aggregation = aggregation
        self._turns = aggregation.turns if isinstance(aggregation, CentralNoise) else None
        self._budget = budget
        self._sampling_rate = sampling_rate
        self._history = history
        self._connect_timeout = connect_timeout
        self._measure = measure
        self._after_round = after_round
        self._ranks = ranks
        self._rollback = rollback
        self._round_start = start
        self._round_rank: int | None = None
        self._asked: list[int] = []
        self._sent: list[Message] = []
        self._all_connected = False
        self._coins = secrets.SystemRandom()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask each connected client with the same chance, or each whose turn it is."""
        del server_round, arrays
        self._round_start = self.arrays
        connected = self._connected(grid)
        if self._turns is not None:
            connected = [node for node in connected if self._turns.is_due(node)]
        self._asked = [node for node in connected if self._coins.random() < self.rate]
        number = config["server-round"] = len(self._history.rounds) + 1
        if self._ranks is not None:
            self._round_rank = config[ROUND_RANK] = self._ranks.of(number)
        self._packing = Packing.asked(config)
        self._record = to_record(self.arrays)  # one for all, however many are asked
        self._sent = [
            Message(self._request(config, node), dst_node_id=node, message_type=MessageType.TRAIN)
            for node in self._asked
        ]
        self._bytes_sent = sum(wire_bytes(message) for message in self._sent)
        return self._sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check every reply alone, aggregate those that hold, and report on all.

        Where the rule can add them up as they come, no more than one is in memory.
        """
        del server_round
        rule = self._aggregation
        gathering: Gathering = (
            rule.begin(self.arrays) if isinstance(rule, Streaming) else Together(self._aggregate)
        )

        def take(node: int, reply: Reply) -> None:
            gathering.add(node, self._update_in(node, reply))

        answers = self._read(replies, take, unheard=lambda node: "no answer")
        survivors = answers.taken
        # Under client-level privacy an empty round is noised like any: it must not show.
        due = bool(survivors) or self._budget is None
        aggregate = gathering.aggregate(answers.names) if due else None
        if aggregate is not None:
            aggregate = _believable(aggregate, before=self.arrays, names=survivors)
            self.arrays = self._settled(aggregate.arrays)
        self._report(
            answers=answers,
            survivors=survivors,
            filtered={} if aggregate is None else aggregate.filtered,
            error=0.0 if aggregate is None else aggregate.error,
        )
        return to_record(self.arrays), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nobody is asked."""
        del server_round, arrays, config, grid
        return []

    def summary(self) -> None:
        """Flower's log needs no summary; the history tells everything."""

    @property
    def rate(self) -> float:
        """The chance with which a client is asked."""
        return self._sampling_rate

    def _report(
        self,
        *,
        answers: Answers[Any],
        survivors: Iterable[str],
        filtered: Mapping[str, str] | None = None,
        error: float = 0.0,
    ) -> None:
        """Measure the adapter as it is now, and write the round down."""
        survivors = tuple(survivors)
        quality, rolled_back = self._judged()
        self._history.rounds.append(
            RoundReport(
                number=len(self._history.rounds) + 1,
                asked=tuple(self._name(node) for node in self._asked),
                survivors=survivors,
                failed=answers.failed,
                filtered=filtered or {},
                books=answers.books,
                quality=quality,
                aggregation_error=error,
                bytes_sent=self._bytes_sent,
                bytes_received=self._received,
                rolled_back=rolled_back,
            )
        )
        self._after_round(self.arrays, self._history)
        if self._budget is not None:  # else who took part is a secret
            log(INFO, "answered: %s; failed: %s", ", ".join(survivors) or "nobody", answers.failed)

    def _judged(self) -> tuple[Mapping[str, float], str]:
        """What the adapter is worth, and why a round was given up in which it broke."""
        found, before = self._measure(self.arrays), self._history.quality
        why = self._rollback.refusal(before=before, after=found) if self._rollback else ""
        if why:
            self.arrays = self._round_start
        return (dict(before) if why else found), why

    def _connected(self, grid: Grid) -> list[int]:
        """All clients, once they have come; later whoever is still there."""
        if not self._all_connected:
            self._wait_for_all(grid)
            self._all_connected = True
        return sorted(set(grid.get_node_ids()) - set(self._history.expelled))

    def _wait_for_all(self, grid: Grid) -> None:
        """A run that was begun before goes on without those that have not come in time."""
        deadline = time.monotonic() + self._connect_timeout
        while (come := len(list(grid.get_node_ids()))) < self.min_available_nodes:
            if time.monotonic() < deadline:
                time.sleep(1)
            elif come and self._history.rounds:
                return
            else:
                raise ConfigurationError(
                    f"{come} of {self.min_available_nodes} clients connected within "
                    f"{self._connect_timeout:g} s; start the others, or name fewer"
                )

    def _from_asked(self, replies: Iterable[Message]) -> Iterator[tuple[int, Message]]:
        """Each asked node's first reply, as they come: for a dead one, Flower's link answers."""
        waiting = {each.metadata.message_id: each.metadata.dst_node_id for each in self._sent}
        for reply in replies:
            self._received += wire_bytes(reply)
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                yield node, reply

    def _request(self, config: ConfigRecord, node: int) -> RecordDict:
        seen = {} if self._budget is None else {SEEN: self._history.steps_seen(self._name(node))}
        told = ConfigRecord({**config, **seen})
        return RecordDict({"arrays": self._record, "config": told})

    def _read(
        self,
        replies: Iterable[Message],
        take: Callable[[int, Reply], Taken],
        *,
        unheard: Callable[[int], str],
    ) -> Answers[Taken]:
        """Check every reply alone as it comes, and take what holds.

        Args:
            replies: of the clients that were asked.
            take: what is used of a node's reply; refuses what was not agreed.
            unheard: why a node gave nothing, if no reply of it is there.
        """
        failed: dict[int, str] = {}
        found: dict[int, tuple[str, ClientBooks | None, Taken]] = {}
        answers = Answers[Taken]()
        self._received = 0
        for node, reply in self._from_asked(replies):
            try:
                given = read_reply(reply, budget=self._budget)
                books, before = given.books, self._name(node)
                if books is not None and (forgotten := self._forgotten(before, books)):
                    answers.books[before] = books
                    raise ConfigurationError(forgotten)
                found[node] = given.client, books, take(node, given)
            except ConfigurationError as error:
                failed[node] = str(error)
                self._hear(node, reply)
        for node in self._asked:
            if node not in found:
                answers.failed[self._name(node)] = failed.get(node) or unheard(node)
        for node, (said, books, taken) in sorted(found.items()):
            name = answers.names[node] = self._history.learn_name(node, said)
            answers.taken[name] = taken
            if books is not None:
                answers.books[name] = books
        return answers

    def _hear(self, node: int, reply: Message) -> None:
        """What a reply of which nothing is used may say all the same."""

    def _update_in(self, node: int, reply: Reply) -> Arrays:
        update = self._unpacked(reply)
        if self._turns is not None:
            self._turns.join(node, reply.client)
        return update

    def _aggregate(self, updates: Mapping[str, Arrays]) -> Aggregate:
        return self._aggregation(self.arrays, updates)

    def _settled(self, arrays: Arrays) -> Arrays:
        """The next adapter. Beyond the round's rank it is what it was: noise there is dropped."""
        if self._round_rank is None:
            return arrays
        return FirstRanks(rank=self._round_rank, whole=self.arrays).kept(arrays)

    def _unpacked(self, reply: Reply) -> Arrays:
        """A client's update at the shared rank, of whatever rank and size it came."""
        # Clients send adapters; corrections of the base are the server's alone.
        adapter = {name: a for name, a in self.arrays.items() if not name.startswith(CORRECTION)}
        ranks = ranks_of_update(reply.said, adapter=adapter, round_rank=self._round_rank)
        update = self._packing.unpack(
            reply.arrays, start=ranks.narrow(adapter), client=reply.client
        )
        return ranks.widen(update)

    def _forgotten(self, name: str, known: ClientBooks) -> str | None:
        """Why an update is not used whose ledger does not hold it beside all that was seen before.

        It has left its client all the same, so its steps are counted.
        """
        seen = self._history.steps_seen(name)
        if known.steps_charged >= seen + known.steps_taken:
            return None
        return (
            f"its ledger held {seen} steps before and holds {known.steps_charged} after "
            f"{known.steps_taken} more: an older copy was brought back; its update is counted, and "
            "not used"
        )

    def _name(self, node: int) -> str:
        return self._history.name_of(node) or f"node {node}"


def _believable(aggregate: Aggregate, *, before: Arrays, names: Iterable[str]) -> Aggregate:
    """The aggregate, or nothing new where a number of it is none, or the adapter's too large:
    two factors of 10³⁰ are finite and their product is not, and no later round mends either.
    """
    for name, values in aggregate.arrays.items():
        largest = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(largest) or (largest > LARGEST and not name.startswith(CORRECTION)):
            why = f"what all updates became together is not finite, or beyond ±{LARGEST:g}"
            left = {**dict.fromkeys(names, why), **aggregate.filtered}
            return Aggregate(arrays=before, filtered=left)
    return aggregate
