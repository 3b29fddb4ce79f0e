"""The server's side of "ckks": it adds what it cannot read, and asks the key-holder for the sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.secure_sum.ciphertexts.homomorphic import EncryptedTotal, library, unpacked
from dpacc.federated.secure_sum.exchange import Exchange, SumNotOpened
from dpacc.federated.secure_sum.fixed_point import Integers
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Payload, ProtectedNumbers
from dpacc.federated.secure_sum.settings import SecureSum


class EncryptedSum:
    """One sum, as the server conducts it.

    Args:
        settings: the threshold.
        exchange: this sum's queries.
        count: how many numbers each client adds.
    """

    def __init__(self, *, settings: SecureSum, exchange: Exchange, count: int) -> None:
        library()
        self._settings = settings
        self._exchange = exchange
        self._count = count
        self._holder: int | None = None
        self._there: set[int] = set()
        self._arrived: set[int] = set()
        self._total: EncryptedTotal | None = None

    def invite(self, nodes: Sequence[int], agreed: str) -> dict[int, Payload]:
        """Have the first client that answers make a key; its public half for all.

        Raises:
            SumNotOpened: fewer than the threshold are there, or the key-holder is not.
        """
        here = self._exchange.query(KEYS, {node: {"agreed": agreed} for node in nodes})
        self._require(len(here), "answered")
        self._holder = min(here)
        key = self._exchange.query(SHARES, {self._holder: {}}).get(self._holder)
        public = None if key is None else key.get("public")
        if not isinstance(public, bytes):
            raise SumNotOpened("the client that was to hold the key made none")
        try:
            self._total, self._there = EncryptedTotal(public=public), set(here)
        except Exception as error:  # whoever sent it chose the bytes
            raise SumNotOpened("the client that was to hold the key made none") from error
        return {node: {"public": public} for node in here}

    def take(self, node: int, numbers: ProtectedNumbers) -> None:
        """Add one client's encrypted numbers.

        Raises:
            ConfigurationError: they are not of the agreed form, or not expected.
        """
        if node not in self._there - self._arrived or numbers.dtype != np.uint8:
            raise ConfigurationError("encrypted numbers that this sum does not expect")
        assert self._total is not None
        try:
            self._total.add(unpacked(numbers))
        except Exception as error:  # whoever sent them chose the bytes
            raise ConfigurationError("encrypted numbers that cannot be added") from error
        self._arrived.add(node)

    @property
    def arrived(self) -> int:
        """How many clients' numbers are in the sum."""
        return len(self._arrived)

    def require_openable(self) -> None:
        """Stop before anything is charged if the sum cannot be opened.

        Raises:
            SumNotOpened: too few clients' numbers arrived, or the key-holder is gone.
        """
        self._require(self.arrived, "sent encrypted numbers")
        if self._holder not in self._arrived:
            raise SumNotOpened("the client that holds the key did not answer; the sum stays shut")

    def open(self) -> Integers:
        """The exact sum of the numbers that arrived.

        Raises:
            SumNotOpened: the key-holder refused or is gone.
        """
        self.require_openable()
        assert self._holder is not None
        assert self._total is not None
        asked: Payload = {"ciphertexts": self._total.boxes()}
        answer = self._exchange.query(OPEN, {self._holder: asked}).get(self._holder)
        numbers = None if answer is None else answer.get("numbers")
        if answer is None or not isinstance(numbers, bytes):
            raise SumNotOpened(
                self._exchange.refused.get(self._holder, "the client that holds the key is gone")
            )
        right = len(numbers) == self._count * np.dtype(np.int64).itemsize
        if not right or answer.get("clients") != str(self.arrived):
            raise SumNotOpened("the key-holder opened a sum of other numbers than were sent")
        return np.frombuffer(numbers, dtype="<i8").astype(np.int64)

    def _require(self, count: int, did: str) -> None:
        if count < self._settings.fewest:
            raise SumNotOpened(
                f"{count} clients {did}; a secure sum opens for {self._settings.fewest} or more"
            )
