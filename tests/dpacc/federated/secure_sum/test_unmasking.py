"""What a server holds of a masked sum, and for how long."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Message

from dpacc.federated.secure_sum.exchange import Exchange
from dpacc.federated.secure_sum.messages import OPEN, RECORD
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.unmasking import MaskedSum
from tests.dpacc.federated.secure_sum.sums import Federation, LossyGrid, updates

DRAWN = SecureSum(clients=20, threshold=16, neighbours=9)


def test_what_is_forwarded_is_in_memory_once() -> None:
    """A sealed share is held by the request that carries it alone; who is there, by all at once."""
    federation = Federation(updates(20), DRAWN)
    exchange = Exchange(grid=federation.grid, session="a session", timeout=1.0)
    server = MaskedSum(settings=DRAWN, exchange=exchange, count=1)
    told = server.invite(range(1, 21), DRAWN.agreed(None))
    federation.grid.seen.clear()
    gc.collect()  # replies of Flower's hold themselves
    boxes: list[Any] = [box for each in told.values() for box in each.pop("sealed")]  # type: ignore[union-attr]
    held_once = [bytes(bytearray(each)) for each in boxes]
    assert len(boxes) == 20 * 9
    assert [sys.getrefcount(each) for each in boxes] == [sys.getrefcount(e) for e in held_once]
    assert len({id(each["present"]) for each in told.values()}) == 1


def test_a_sum_is_opened_without_what_was_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When shares are asked for, no request to train, each with k sealed shares, is left."""
    federation = Federation(updates(20), DRAWN)
    left: list[int] = []
    send = LossyGrid.send_and_receive

    def look(grid: LossyGrid, messages: Iterable[Message], **named: Any) -> list[Message]:
        sent = list(messages)
        if sent and sent[0].metadata.message_type == f"query.{OPEN}":
            gc.collect()
            left.append(sum("sealed" in told for told in told_in(federation.session)))
        return send(grid, sent, **named)

    monkeypatch.setattr(LossyGrid, "send_and_receive", look)
    assert len(federation.round().survivors) == 20
    assert left == [0]


def told_in(session: str) -> list[Any]:
    """What requests of this sum, as far as they are in memory, tell their clients."""
    requests = [each for each in gc.get_objects() if type(each) is Message and each.has_content()]
    records = [each.content.config_records.get(RECORD) for each in requests]
    return [each for each in records if each is not None and each.get("session") == session]
