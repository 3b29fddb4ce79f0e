"""Clients that send what they like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

from dpacc.federated.clients.private_client import DPLoRAClient

Twist = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the round's start and an honest update to what is sent."""

TWISTS: dict[str, Twist] = {
    "sign flip": lambda start, update: start - 2 * (update - start),
    "scaled": lambda start, update: start + 1000 * (update - start),
    "scaled sign flip": lambda start, update: start - 100 * (update - start),
    "not a number": lambda start, update: np.full_like(update, np.nan),
    "wrong shapes": lambda start, update: update.ravel()[:1],
}


class HostileClient(DPLoRAClient):
    """Trains as others do, then twists every array that it sends."""

    def __init__(self, *, twist: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._twist = TWISTS[twist]

    def answer(self, message: Message) -> Message:
        """An honest answer with its arrays replaced."""
        start = message.content.array_records["arrays"]
        honest = super().answer(message)
        arrays = honest.content.array_records["arrays"]
        twisted = {
            name: Array(self._twist(start[name].numpy(), array.numpy()))
            for name, array in arrays.items()
        }
        honest.content["arrays"] = ArrayRecord(twisted)
        return honest


Spoil = Callable[[RecordDict], None]


def _array(name: str, values: np.ndarray) -> Spoil:
    def spoil(reply: RecordDict) -> None:
        reply.array_records["arrays"][name] = Array(values)

    return spoil


def _said(name: str, value: Any) -> Spoil:
    def spoil(reply: RecordDict) -> None:
        reply.config_records["config"][name] = value

    return spoil


def _unreadable(reply: RecordDict) -> None:
    bad = Array(dtype="int8", shape=(1,), stype="numpy.ndarray", data=b"\x80\x04.")
    reply.array_records["arrays"]["codes"] = bad


SPOILS: dict[str, Spoil] = {
    "codes too short": _array("codes", np.zeros(1, np.int8)),
    "an array more": _array("places", np.zeros(1, np.uint8)),
    "scales not finite": _array("scales", np.full(1, np.nan, np.float32)),
    "unreadable codes": _unreadable,
    "a rank too high": _said("rank", 10**6),
    "no rank": _said("rank", 0),
    "a rank in words": _said("rank", "two"),
    "another's rank": _said("rank", 1),
}
"""What a client may do to a reply that holds a compressed update of 8 bits."""


class HostileCompressor(DPLoRAClient):
    """Trains and compresses as others do, then spoils the reply."""

    def __init__(self, *, spoil: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._spoil = SPOILS[spoil]

    def answer(self, message: Message) -> Message:
        """An honest answer, spoiled."""
        honest = super().answer(message)
        self._spoil(honest.content)
        return honest
