"""The strategy of FedASK, which asks a second question each round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import Aggregate
from dpacc.federated.aggregation.factors import CORRECTION, Factors, factors_of
from dpacc.federated.aggregation.sketch_messages import read_second, read_sketching
from dpacc.federated.aggregation.sketches import Sketching
from dpacc.federated.server.replies import Reply
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.updates.layout import Arrays, from_record, to_record
from dpacc.federated.updates.packing import wire_bytes


class SketchingLoRA(FederatedLoRA):
    """Asks twice a round: for sketches, then for what each client's product is in their basis.

    A client that answers only once is left out of the mean, and reported as filtered.

    Args:
        factors: the adapted layers.
        drawn: the adapter before any training.
        seconds: after which a round goes on without a second answer.
        others: as [`FederatedLoRA`][dpacc.federated.server.strategy.FederatedLoRA] takes them.
    """

    def __init__(
        self, *, factors: tuple[Factors, ...], drawn: Arrays, seconds: float, **others: Any
    ) -> None:
        super().__init__(**others)
        self._factors = factors
        self._drawn = drawn
        self._seconds = seconds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask each connected client with the same chance, for its sketches."""
        messages = super().configure_train(server_round, arrays, config, grid)
        sketching = read_sketching(config, self._factors)
        assert sketching is not None
        self._grid, self._config, self._sketching = grid, config, sketching
        return messages

    def _unpacked(self, reply: Reply) -> Arrays:
        adapter = {name: a for name, a in self.arrays.items() if not name.startswith(CORRECTION)}
        return from_record(reply.arrays, like=self._sketching.first_like(adapter))

    def _aggregate(self, updates: Mapping[str, Arrays]) -> Aggregate:
        return self._sketching.aggregate(
            self.arrays, updates, lambda bases: self._ask(bases, set(updates)), drawn=self._drawn
        )

    def _ask(self, bases: Arrays, names: set[str]) -> Mapping[str, Arrays]:
        """The second answers that hold, by client."""
        nodes = {node: name for name, node in self._history.nodes.items() if name in names}
        record = RecordDict({"arrays": to_record(bases), "config": self._config})
        messages = list(self._construct_messages(record, [*nodes], MessageType.QUERY))
        self._bytes_sent += sum(wire_bytes(message) for message in messages)
        replies = list(self._grid.send_and_receive(messages, timeout=self._seconds))
        # A message has its number once it was sent.
        asked = {each.metadata.message_id: each.metadata.dst_node_id for each in messages}
        answers: dict[str, Arrays] = {}
        for reply in replies:
            self._received += wire_bytes(reply)
            node = asked.get(reply.metadata.reply_to_message_id)
            try:
                answer = read_second(reply, self._sketching)
            except ConfigurationError:
                continue
            if node is not None:
                answers[nodes[node]] = answer
        return answers


def strategy_for(
    sketch_size: int | None, *, model: nn.Module, drawn: Arrays, seconds: float
) -> Callable[..., FederatedLoRA]:
    """The strategy of one question a round, or with a sketch that of two."""
    if sketch_size is None:
        return FederatedLoRA
    return partial(SketchingLoRA, factors=factors_of(model), drawn=drawn, seconds=seconds)


def require_sketchable(sketch_size: int | None, *, aggregation: str, defended: bool) -> None:
    """Refuse sketches that the rest of the federation contradicts.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if aggregation != "fedask":
        if sketch_size is not None:
            raise ConfigurationError(
                f"sketch_size={sketch_size} with aggregation={aggregation!r}, which sends no "
                "sketches; take aggregation='fedask', or leave sketch_size out"
            )
        return
    Sketching(factors=(), size=sketch_size)  # type: ignore[arg-type]  # checked there
    if defended:
        raise ConfigurationError(
            "aggregation='fedask' with a defence: the server is sent sketches, of which norms and "
            "distances say little; take aggregation='fedex', or leave the defence out"
        )
