"""Updates as whole numbers, whose sums are exact.

A number becomes the nearest multiple of 2⁻ᶠ, and whole numbers are added modulo 2³². f is the
largest for which no sum of all clients can wrap around, so the decoded sum is that of the encoded
numbers, without any error. Codes of compressed updates are whole numbers already; they are added
modulo the smallest of 2⁸, 2¹⁶ and 2³² around which no sum of theirs can wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpacc.errors import DpaccError

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Residues = npt.NDArray[np.unsignedinteger[Any]]

LARGEST_SUM = (1 << 31) - 1
_MOST_FRACTION_BITS = 26


class OutOfRange(DpaccError):  # noqa: N818 - reads as what happened
    """A number is too large for its place in the sum; nothing was sent."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words in which masked numbers cross, w bits each.

    Args:
        bits: w.
        terms: what this client was told of the codes in them; empty for whole updates. Masks
            depend on it: those of clients that were told different things do not cancel.
    """

    bits: int = 32
    terms: str = ""

    @classmethod
    def fitting(cls, *, most: int, terms: str = "") -> Words:
        """The narrowest for sums of at most `most` in size: most < 2ʷ⁻¹.

        Raises:
            OutOfRange: 32 bits are too few.

        >>> [Words.fitting(most=m).bits for m in (127, 128, 32767, 32768)]
        [8, 16, 16, 32]
        """
        for bits in (8, 16, 32):
            if most < 1 << (bits - 1):
                return cls(bits=bits, terms=terms)
        raise OutOfRange(f"sums of up to {most} do not fit in 32 bits; lower clients")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The unsigned type of one word."""
        return np.dtype(f"uint{self.bits}")


WHOLE = Words()
"""Of whole updates."""


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """The grid on which all clients' numbers lie.

    Args:
        clients: n, how many may be added.
        fraction_bits: f, the grid's spacing being 2⁻ᶠ.
    """

    clients: int
    fraction_bits: int

    @classmethod
    def fitting(cls, *, clients: int, reach: float, most_bits: int = 26) -> FixedPoint:
        """The finest grid on which n numbers of at most `reach` add without wrapping.

        Args:
            clients: n.
            reach: the largest magnitude of one client's number.
            most_bits: where a finer grid is not wanted.

        >>> grid = FixedPoint.fitting(clients=5, reach=8.0)
        >>> grid.fraction_bits, grid.most
        (25, 429496729)
        """
        bits = min(most_bits, _MOST_FRACTION_BITS)
        while bits and clients * (reach * 2.0**bits + 1) > LARGEST_SUM:
            bits -= 1
        if clients * (reach * 2.0**bits + 1) > LARGEST_SUM:
            raise OutOfRange(
                f"{clients} numbers of up to {reach:g} do not fit in 32 bits; lower reach"
            )
        return cls(clients=clients, fraction_bits=bits)

    @property
    def spacing(self) -> float:
        """The distance of neighbouring points, 2⁻ᶠ."""
        return 2.0**-self.fraction_bits

    @property
    def most(self) -> int:
        """The largest whole number that one client may add."""
        return LARGEST_SUM // self.clients

    def rounded(self, values: Doubles) -> Integers:
        """The nearest points' numbers.

        Raises:
            OutOfRange: a value is not finite or too large.
        """
        if not np.isfinite(values).all():
            raise OutOfRange("an update holds numbers that are not finite")
        return self.within(np.rint(values * 2.0**self.fraction_bits))

    def within(self, whole: npt.NDArray[Any]) -> Integers:
        """The same whole numbers, once none is too large for its place in the sum.

        Raises:
            OutOfRange: one is.
        """
        if whole.size and np.abs(whole).max() > self.most:
            raise OutOfRange(
                f"an update moves a number by more than {self.most * self.spacing:g}, the most "
                f"that {self.clients} clients can add exactly; train more gently or raise reach"
            )
        return whole.astype(np.int64)

    def values(self, total: Integers) -> Doubles:
        """What a sum of whole numbers stands for, without error."""
        return np.asarray(total * self.spacing, dtype=np.float64)


def residues(whole: Integers, *, words: Words = WHOLE) -> Residues:
    """Whole numbers modulo 2ʷ."""
    return (whole & ((1 << words.bits) - 1)).astype(words.dtype)


def signed(total: Residues) -> Integers:
    """The whole numbers in [−2ʷ⁻¹, 2ʷ⁻¹) that are `total` modulo 2ʷ, w being its type's bits.

    >>> signed(residues(np.array([-5, 7]))).tolist()
    [-5, 7]
    """
    return total.view(f"int{8 * total.itemsize}").astype(np.int64)
