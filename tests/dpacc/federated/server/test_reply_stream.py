"""Replies that are taken a few at a time, and updates that are dropped once they are added."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpacc.federated.aggregation import averaging
from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.server import reply_stream
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.reply_stream import StreamingGrid
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.updates.layout import Arrays, to_record


def giving(moved: float, *, width: int = 5, name: str = "") -> ClientApp:
    """A client whose update is the same number everywhere."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        said = ConfigRecord({"client": name or f"site-{context.node_id}"})
        update = {"B": np.full(width, moved, np.float32)}
        return Message(RecordDict({"arrays": to_record(update), "config": said}), reply_to=message)

    return app


def strategy(clients: int, *, width: int = 5) -> FederatedLoRA:
    return FederatedLoRA(
        start={"B": np.zeros(width, np.float32)},
        aggregation=ffa,
        budget=None,
        clients=clients,
        sampling_rate=1.0,
        history=History(),
        connect_timeout=60.0,
        measure=lambda arrays: {},
        after_round=lambda arrays, history: None,
    )


def one_round(one: FederatedLoRA, grid: Any) -> Arrays:
    config = ConfigRecord({"run": "r", "privacy": "client"})
    one.start(grid=grid, initial_arrays=to_record(one.arrays), num_rounds=1, train_config=config)
    return one.arrays


class Slow(LocalGrid):
    """Gives two replies at most for each question, the last first, and counts what it gives."""

    def __init__(self, apps: Any) -> None:
        super().__init__(apps)
        self.together: list[int] = []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = [number for number in message_ids if number in self._replies][-2:]
        found = list(super().pull_messages(wanted[::-1]))
        self.together.append(len(found))
        return found


def test_replies_come_a_few_at_a_time_and_the_mean_is_that_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven replies, three asked for together: each is counted once, in whatever order it comes."""
    monkeypatch.setattr(reply_stream, "_BYTES_TOGETHER", 1000)
    grid = Slow({n: giving(0.1 * n, width=40) for n in range(1, 8)})
    one = strategy(7, width=40)
    found = one_round(one, StreamingGrid(grid, pause=0))
    expected = np.mean([np.float32(0.1 * n) for n in range(1, 8)], dtype=np.float64)
    assert found["B"].tolist() == [np.float32(expected)] * 40
    assert one._history.rounds[0].survivors == tuple(f"site-{n}" for n in range(1, 8))
    assert sum(grid.together) == 7
    assert max(grid.together) <= 3


def test_a_round_ends_without_who_never_answers() -> None:
    """Once the time is over, what is there is taken, and the rest is named."""
    grid = Slow({n: giving(1.0) for n in (1, 2)})
    numbers = list(grid.push_messages([Message(RecordDict(), 1, "train")]))
    replies = StreamingGrid(grid, pause=0)._replies([*numbers, "never"], together=1, until=0.0)
    assert [each.metadata.reply_to_message_id for each in replies] == numbers


def test_one_update_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty updates none outlives its own addition."""
    alive: list[weakref.ref[Any]] = []
    most = []
    honest = averaging.RunningMean.add

    def watched(self: averaging.RunningMean, node: int, update: Arrays) -> None:
        gc.collect()
        most.append(sum(each() is not None for each in alive))
        alive.append(weakref.ref(update["B"]))
        honest(self, node, update)

    monkeypatch.setattr(averaging.RunningMean, "add", watched)
    one_round(strategy(20), LocalGrid({n: giving(1.0) for n in range(1, 21)}))
    assert len(most) == 20
    assert max(most) <= 1


def test_a_reply_that_comes_twice_is_added_once() -> None:
    """One client's second one to the same question, and one to what nobody asked."""

    class Echo(LocalGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            found = list(super().pull_messages(message_ids))
            stranger = Message(RecordDict(), 9, "train")
            stranger.metadata.__dict__["_reply_to_message_id"] = "unknown"
            again = [each for each in found if each.metadata.src_node_id == 1]
            return [*found, *again, stranger]

    found = one_round(strategy(2), Echo({1: giving(1.0), 2: giving(2.0)}))
    assert found["B"].tolist() == [1.5] * 5


def test_names_are_learned_in_the_order_of_nodes_however_replies_come() -> None:
    """Two that say the same name: the lower node bears it, whoever was faster."""
    names = []
    for reverse in (False, True):

        class Turned(LocalGrid):
            def send_and_receive(
                self, messages: Iterable[Message], *, timeout: float | None = None
            ) -> list[Message]:
                replies = list(super().send_and_receive(messages, timeout=timeout))
                return replies[::-1] if reverse else replies  # noqa: B023 - used at once

        one = strategy(2)
        one_round(one, Turned({n: giving(1.0, name="same") for n in (1, 2)}))
        names.append(one._history.nodes)
    assert names[0] == names[1] == {"same": 1, "same (node 2)": 2}
