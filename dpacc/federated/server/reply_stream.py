"""Flower's Grid of a deployed federation, whose replies are taken a few at a time.

Flower's own `send_and_receive` returns once all replies lie in the server's memory. Here as many
are pulled together as fit 256 MB; the others wait at the SuperLink.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from dpacc.federated.updates.packing import wire_bytes

_BYTES_TOGETHER = 1 << 28


class StreamingGrid(Grid):
    """Another grid, whose replies come one by one.

    Args:
        grid: which carries the messages.
        pause: seconds between two questions for replies where none came.
    """

    def __init__(self, grid: Grid, *, pause: float = 3.0) -> None:
        self._grid = grid
        self._pause = pause

    def set_run(self, run: Run) -> None:
        """Messages belong to `run` from now on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes that are connected."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and do not wait."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send all at once; their replies as they come, until `timeout` seconds from now."""
        sent = list(messages)
        until = None if timeout is None else time.monotonic() + timeout
        together = max(1, _BYTES_TOGETHER // wire_bytes(sent[0])) if sent else 1
        numbers = [number for number in self.push_messages(sent) if number]
        return self._replies(numbers, together=together, until=until)

    def _replies(
        self, numbers: list[str], *, together: int, until: float | None
    ) -> Iterator[Message]:
        """Every reply once; what is waiting when the time is over is still asked for once."""
        waiting = dict.fromkeys(numbers)
        while waiting:
            last = until is not None and time.monotonic() >= until
            before = len(waiting)
            left = list(waiting)
            for start in range(0, before, together):
                for reply in self.pull_messages(left[start : start + together]):
                    waiting.pop(reply.metadata.reply_to_message_id, None)
                    yield reply
            if last:
                return
            if len(waiting) == before:
                time.sleep(self._pause)
