"""How the server asks all clients for one stage of a sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import numpy as np
from flwr.app import Array, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from dpacc.errors import DpaccError
from dpacc.federated.requests import printable
from dpacc.federated.secure_sum.messages import RECORD, Payload, ProtectedNumbers
from dpacc.federated.updates.packing import wire_bytes


class SumNotOpened(DpaccError):  # noqa: N818 - reads as what happened
    """The protocol stopped: no sum was learned, and nothing changes."""


class Exchange:
    """Queries of one session.

    Args:
        grid: carries the messages.
        session: which every message names.
        timeout: seconds after which a stage goes on without who has not answered.

    Attributes:
        refused: why clients answered with an error, or what they are to blame for, by node.
        culprits: those that are to blame: what they sent could be no honest client's.
        bytes_sent: what all its queries weighed, serialised.
        bytes_received: what their answers did.
    """

    def __init__(self, *, grid: Grid, session: str, timeout: float) -> None:
        self._grid = grid
        self.session = session
        self._timeout = timeout
        self.refused: dict[int, str] = {}
        self.culprits: dict[int, str] = {}
        self.bytes_sent = self.bytes_received = 0

    def query(self, stage: str, asked: Mapping[int, Payload]) -> dict[int, ConfigRecord]:
        """What each client answered; those that refused, failed or were late are left out."""
        return dict(self.answers(stage, asked))

    def answers(
        self, stage: str, asked: Mapping[int, Payload]
    ) -> Iterator[tuple[int, ConfigRecord]]:
        """Each client's first answer as it comes, which is not kept here."""
        messages = [
            Message(
                RecordDict({RECORD: self.record(told)}),
                dst_node_id=node,
                message_type=f"query.{stage}",
            )
            for node, told in asked.items()
        ]
        self.bytes_sent += sum(wire_bytes(message) for message in messages)
        replies = self._grid.send_and_receive(messages, timeout=self._timeout)
        nodes = {each.metadata.message_id: each.metadata.dst_node_id for each in messages}
        yield from self._read(replies, nodes)

    def blame(self, node: int, why: str) -> None:
        """Write down that this client sent what no honest one sends."""
        self.refused[node] = self.culprits[node] = why

    def record(self, told: Payload) -> ConfigRecord:
        """A stage's words, with the session."""
        return ConfigRecord({"session": self.session, **told})

    def _read(
        self, replies: Iterable[Message], nodes: dict[str, int]
    ) -> Iterator[tuple[int, ConfigRecord]]:
        for reply in replies:
            self.bytes_received += wire_bytes(reply)
            node = nodes.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            if reply.has_error():
                self.refused[node] = printable(str(reply.error.reason))
            elif RECORD in reply.content.config_records:
                yield node, reply.content.config_records[RECORD]


def words_of(record: ConfigRecord, names: str, values: str) -> dict[str, bytes]:
    """Bytes by node, from two lists that a client sent.

    Raises:
        ValueError: they are none.
    """
    nodes, each = record.get(names), record.get(values)
    if not isinstance(nodes, list) or not isinstance(each, list) or len(nodes) != len(each):
        raise ValueError(f"{names} and {values} do not fit")
    if not all(isinstance(n, str) for n in nodes) or not all(isinstance(e, bytes) for e in each):
        raise ValueError(f"{names} and {values} are not of the agreed types")
    return dict(zip(cast(list[str], nodes), cast(list[bytes], each), strict=True))


def to_array(numbers: ProtectedNumbers) -> Array:
    """Protected numbers as Flower sends them."""
    return Array(np.ascontiguousarray(numbers))
