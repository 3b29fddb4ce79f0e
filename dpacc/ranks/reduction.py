"""How sums cross the network between ranks, and what of them each rank adds noise to."""

from __future__ import annotations

from typing import Literal, Protocol

from accelerate import Accelerator
from torch import Tensor

from dpacc.ranks import collectives

WireFormat = Literal["fp32", "bf16"]


class Reduction(Protocol):
    """Sums over ranks; `whole` may only be given what carries its noise already."""

    def sum(self, clipped: Tensor) -> Tensor:
        """This rank's part of the sum of every rank's clipped sum."""

    def part(self, whole: Tensor) -> Tensor:
        """The same part of a tensor that every rank has."""

    def whole(self, noised: Tensor) -> Tensor:
        """Every rank's noised part, put together on every rank."""


class AllReduced:
    """One all-reduce; every rank has the whole sum and adds the same noise to it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def sum(self, clipped: Tensor) -> Tensor:
        """All of it."""
        return collectives.sum_over_ranks(self._accelerator, clipped)

    def part(self, whole: Tensor) -> Tensor:
        """All of it."""
        return whole

    def whole(self, noised: Tensor) -> Tensor:
        """It is whole."""
        return noised


class RoundedOnceNoised:
    """The clipped sum crosses as it is, the noised sum in bf16: 6 bytes an element, not 8.

    Each rank gets its share of the exact sum, adds the noise, and only then rounds: what is rounded
    was released already, so rounding costs no privacy. Rounding the ranks' clipped sums instead
    would move each by up to 2⁻⁸ of itself, and one more example may move every other to another
    rank: a step of B examples would have sensitivity C·(1 + B/128), three times the noise at
    B = 256.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def sum(self, clipped: Tensor) -> Tensor:
        """This rank's share, exactly."""
        self._width = len(clipped)
        return collectives.share_of_sum(self._accelerator, clipped)

    def part(self, whole: Tensor) -> Tensor:
        """The same share."""
        return collectives.share_of(self._accelerator, whole)

    def whole(self, noised: Tensor) -> Tensor:
        """All shares in fp32, to 8 binary digits, alike on every rank."""
        return collectives.gather_shares(self._accelerator, noised.bfloat16())[
            : self._width
        ].float()


def reduction_for(accelerator: Accelerator, wire: WireFormat) -> Reduction:
    """The wire of that name."""
    return AllReduced(accelerator) if wire == "fp32" else RoundedOnceNoised(accelerator)
