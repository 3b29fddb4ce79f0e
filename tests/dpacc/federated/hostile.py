"""Clients that send what they like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from dpacc.federated.client import DPLoRAClient

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
