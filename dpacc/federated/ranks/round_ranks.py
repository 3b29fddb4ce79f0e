"""One public rank a round for all: what of the shared adapter learns, crosses, and may move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpacc.errors import ConfigurationError
from dpacc.federated.ranks.mixed_ranks import NestedRanks, rank_of
from dpacc.federated.requests import RequestRefused
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.layout import Arrays
from dpacc.federated.updates.packing import rank_said
from dpacc.layers.dynamic_rank import DrawnRanks, rank_axis

ROUND_RANK = "round-rank"
"""The entry of a request that names the round's rank."""


@dataclass(frozen=True, kw_only=True)
class FirstRanks:
    """The first `rank` rows of every A and columns of every B of an adapter; and all else of it.

    What is no factor, as a head, is whole at every rank.

    Args:
        rank: r of the round.
        whole: the adapter at its own rank, as the round starts from it.

    >>> whole = {"q.lora_A.default.weight": np.float32([[1.0], [2.0]])}
    >>> first = FirstRanks(rank=1, whole=whole)
    >>> first.narrow(whole)
    {'q.lora_A.default.weight': array([[1.]], dtype=float32)}
    >>> first.widen({"q.lora_A.default.weight": np.float32([[5.0]])})
    {'q.lora_A.default.weight': array([[5.],
           [2.]], dtype=float32)}
    """

    rank: int
    whole: Mapping[str, npt.NDArray[np.float32]]

    def narrow(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """What learns in this round."""
        return {
            name: np.ascontiguousarray(values[self._first(name)]) for name, values in arrays.items()
        }

    def widen(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """What learned, in its place in the adapter; all else as the round began with it."""
        wide = {name: values.copy() for name, values in self.whole.items()}
        for name, values in arrays.items():
            wide[name][self._first(name)] = values
        return wide

    def silenced(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """With zeros where nothing learns: then neither of two factors there has a gradient."""
        zeros = {name: np.zeros_like(values) for name, values in arrays.items()}
        return FirstRanks(rank=self.rank, whole=zeros).widen(self.narrow(arrays))

    def kept(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """The same adapter, but where nothing learns it is what it was, to the last bit."""
        return self.widen(self.narrow(arrays))

    def _first(self, name: str) -> tuple[slice, ...]:
        axis = rank_axis(name)
        return () if axis is None else (slice(None),) * axis + (slice(self.rank),)


def round_ranks(lora: LoraSettings) -> DrawnRanks | None:
    """Each round's rank, by its number, as everybody draws it; None where all ranks always learn.

    >>> round_ranks(LoraSettings(method="dylora", rank=4, seed=1)).of(0)
    3
    """
    if lora.method != "dylora":
        return None
    return DrawnRanks(seed=lora.seed, largest=lora.rank)


def ranks_of_update(
    said: Mapping[str, Any], *, adapter: Arrays, round_rank: int | None
) -> FirstRanks | NestedRanks:
    """How a client's update lies in the shared adapter, by its reply.

    Args:
        said: the reply's words.
        adapter: as the round starts from it.
        round_rank: at which all train; None where a client may have a rank of its own.

    Raises:
        ConfigurationError: the client trained at another rank, or at none that there is.
    """
    if round_rank is None:
        shared = rank_of(adapter)
        return NestedRanks(rank=rank_said(said, shared=shared), shared=shared)
    if said.get("rank") != round_rank:
        raise ConfigurationError(
            f"the reply says rank={said.get('rank')!r}; all train at rank {round_rank} in this "
            "round"
        )
    return FirstRanks(rank=round_rank, whole=adapter)


def rank_asked(asked: Mapping[str, Any], *, number: int, lora: LoraSettings) -> int | None:
    """The rank that all train at in a round, which must be what this client draws, too.

    Args:
        asked: the server's request.
        number: of the round.
        lora: the shared adapter's settings, as this client was given them.

    Raises:
        RequestRefused: the server names another rank, one where all ranks learn, or none.
    """
    ranks, said = round_ranks(lora), asked.get(ROUND_RANK)
    drawn = None if ranks is None else ranks.of(number)
    if said != drawn:
        raise RequestRefused(
            f"the server asks for {ROUND_RANK}={said} in round {number} and this client's is "
            f"{drawn}: give both the same method, rank and seed of LoraSettings"
        )
    return drawn


def require_one_rank(*, lora: LoraSettings, aggregation: str) -> None:
    """Refuse a rule that does not keep one adapter for every rank.

    Raises:
        ConfigurationError: with the remedy.
    """
    if lora.method == "dylora" and aggregation != "average":
        raise ConfigurationError(
            f"aggregation={aggregation!r} with LoraSettings(method='dylora'): a correction of the "
            "base would hold at one rank alone, and A is trained; take aggregation='average'"
        )
