"""How a client's update crosses the wire in one round: whole or compressed, at its own rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.common.serde import message_to_proto

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.compressed_updates import Sent, compress, decompress
from dpacc.federated.updates.compression import Compression, PublicCoins, require_summable
from dpacc.federated.updates.layout import (
    LARGEST,
    Arrays,
    flat,
    from_record,
    read_array,
    to_record,
    unflat,
)


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What server and clients know of a round before anything crosses.

    Args:
        compression: of the difference from the round's start; None sends the update whole.
        run: of the federation.
        number: of the round.
    """

    compression: Compression | None
    run: str
    number: int

    @classmethod
    def asked(cls, config: ConfigRecord) -> Packing:
        """What the server's request asks for.

        Raises:
            ConfigurationError: a compression that is not known here.
        """
        words = config.get("compression")
        return cls(
            compression=None if words is None else Compression.from_words(str(words)),
            run=str(config["run"]),
            number=int(str(config["server-round"])),
        )

    def pack(self, update: Arrays, *, start: Arrays, client: str) -> ArrayRecord:
        """The record that carries `update`; the same request always gives the same bytes."""
        if self.compression is None:
            return to_record(update)
        before = {name: start[name] for name in update}
        difference = (flat(update) - flat(before)).astype(np.float32)
        coins = self.coins(client)
        sent = compress(difference, compression=self.compression, coins=coins)
        return ArrayRecord({name: Array(values) for name, values in sent.items()})

    def unpack(self, record: ArrayRecord, *, start: Arrays, client: str) -> Arrays:
        """The update, read as whatever came over the wire.

        Raises:
            ConfigurationError: it is not what was agreed.
        """
        if self.compression is None:
            return from_record(record, like=start)
        before = flat(start)
        moved = decompress(
            _read_all(record),
            compression=self.compression,
            count=len(before),
            coins=self.coins(client),
        )
        with np.errstate(over="ignore"):
            update = unflat(before + moved, like=start)
        if not all((np.abs(values) <= LARGEST).all() for values in update.values()):
            raise ConfigurationError(
                f"the update holds numbers that are not finite, or beyond ±{LARGEST:g}"
            )
        return update

    def coins(self, client: str) -> PublicCoins:
        """The chance in one client's compression of this round."""
        return PublicCoins(run=self.run, number=self.number, client=client)


def require_packable(
    compression: Compression | None, *, aggregation: str, secure: bool = False
) -> None:
    """Refuse a compression that the rest of the federation contradicts.

    Args:
        compression: what is asked for.
        aggregation: the rule.
        secure: whether updates are added under masks.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if compression is None:
        return
    if secure:
        require_summable(compression)
    if aggregation == "fedask":
        raise ConfigurationError(
            "compression with aggregation='fedask': its clients send sketches, whose errors the "
            "second stage would not see; choose a smaller sketch_size, or another rule"
        )


def rank_said(config: Mapping[str, Any], *, shared: int) -> int:
    """The client's own rank, by its reply; by default the shared one.

    Raises:
        ConfigurationError: it is no rank from 1 to the shared one.
    """
    rank = config.get("rank", shared)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= shared:
        raise ConfigurationError(f"the reply says rank={rank!r}; the shared rank is {shared}")
    return rank


def wire_bytes(message: Message) -> int:
    """The size of a message as it is serialised."""
    return int(message_to_proto(message).ByteSize())


def _read_all(record: ArrayRecord) -> Sent:
    return {name: read_array(name, described) for name, described in record.items()}
