"""What each client adds in one round: its whole update, or the codes of a compressed one."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord

from dpacc.errors import ConfigurationError
from dpacc.federated.secure_sum.fixed_point import (
    WHOLE,
    Doubles,
    FixedPoint,
    Integers,
    OutOfRange,
    Words,
)
from dpacc.federated.secure_sum.settings import SecureSum, require_maskable_codes
from dpacc.federated.updates.compressed_updates import from_integer_sum, to_integers
from dpacc.federated.updates.compression import require_summable
from dpacc.federated.updates.packing import Packing


@dataclass(frozen=True, kw_only=True)
class Summands:
    """The whole numbers of one round's sum, as both ends know them before anything crosses.

    Without compression they are an update on the sum's grid. With it they are its codes c at
    public places, |c| ≤ L = 127 or 7, on the one public grid of spacing limit/L. Numbers
    beyond ±limit, once scaled for random places, are cut: a bias, but no matter of privacy.

    Args:
        settings: n, and the reach of a whole update.
        packing: the compression, and whose coins it draws.
    """

    settings: SecureSum
    packing: Packing

    @classmethod
    def asked(cls, config: ConfigRecord, *, settings: SecureSum, client_level: bool) -> Summands:
        """What the server's request asks a client to add.

        Raises:
            ConfigurationError: a compression that is not known here, or whose codes cannot be
                added under these settings.
        """
        packing = Packing.asked(config)
        if packing.compression is not None:
            require_maskable_codes(settings=settings, client_level=client_level)
            require_summable(packing.compression)
        return cls(settings=settings, packing=packing)

    @property
    def words(self) -> Words:
        """In which masked numbers cross; those of codes are as narrow as the sum of n needs."""
        compression = self.packing.compression
        if compression is None:
            return WHOLE
        terms = [compression.words, self.packing.run, self.packing.number]
        return Words.fitting(
            most=self.settings.clients * compression.levels, terms=json.dumps(terms)
        )

    def count(self, numbers: int) -> int:
        """How many whole numbers an adapter of so many numbers makes."""
        compression = self.packing.compression
        return numbers if compression is None else compression.kept(numbers)

    def whole(self, moved: Doubles, *, client: str) -> Integers:
        """One client's whole numbers; a request that comes twice gets the same ones.

        Raises:
            OutOfRange: a number is not finite, or without compression beyond the reach.
        """
        compression = self.packing.compression
        if compression is None:
            self._require_within_reach(moved)
            return self._grid.rounded(moved)
        if not np.isfinite(moved).all():
            raise OutOfRange("an update holds numbers that are not finite")
        coins = self.packing.coins(client)
        return to_integers(moved.astype(np.float32), compression=compression, coins=coins)

    def mean(self, total: Integers, *, clients: int, numbers: int) -> Doubles:
        """By how much the adapter's numbers moved on average, from the sum of so many clients.

        Raises:
            ConfigurationError: numbers of so many clients have no such sum, so that one of them
                sent what is no update.
        """
        compression = self.packing.compression
        if compression is None:
            self._require_possible(total, clients=clients)
            return self._grid.values(total) / clients
        return from_integer_sum(
            total,
            compression=compression,
            count=numbers,
            clients=clients,
            coins=self.packing.coins(""),  # the places are all clients'
        )

    def _require_within_reach(self, moved: Doubles) -> None:
        largest = float(np.abs(moved).max(initial=0.0))
        if largest > self.settings.reach:  # what is not finite the grid refuses
            raise OutOfRange(
                f"an update moves a number by {largest:g} and reach={self.settings.reach:g}; train "
                "more gently or raise reach"
            )

    def _require_possible(self, total: Integers, *, clients: int) -> None:
        most = clients * (self.settings.reach / self._grid.spacing + 1)
        if total.size and float(np.abs(total).max()) > most:
            raise ConfigurationError(
                f"{clients} updates within reach={self.settings.reach:g} have no such sum: one of "
                "them was none, and a sum cannot tell whose"
            )

    @property
    def _grid(self) -> FixedPoint:
        return FixedPoint.fitting(clients=self.settings.clients, reach=self.settings.reach)
