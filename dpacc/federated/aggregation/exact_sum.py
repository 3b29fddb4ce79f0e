"""A sum that is the same to the last bit in whatever order its terms come.

Each term x, |x| ≤ 2²⁰, becomes a multiple of 2⁻¹⁷ and a remainder of at most 2⁻¹⁸, which becomes a
multiple of 2⁻⁵⁵. Of 65,536 terms both kinds add up within 53 bits, so that no addition rounds
anything. Of an fp32 number not a bit is lost, but below 2⁻³², where what is beyond 2⁻⁵⁵ is rounded
(the splitting is that of Demmel and Nguyen 2015, doi 10.1109/TC.2014.2345391, with fixed places).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dpacc.errors import ConfigurationError

MOST_TERMS = 1 << 16
_LARGEST = 2.0**20
_TO_COARSE, _TO_FINE = 1.5 * 2.0**35, 1.5 * 2.0**-3
"""Added and taken away again, they leave a double's nearest multiple of 2⁻¹⁷, or of 2⁻⁵⁵."""
_CHUNK = 1 << 15
"""Numbers at a time, so that what is split stays in a processor's cache."""


class ExactSum:
    """A sum of vectors, of which none is kept: two doubles a number, however many terms.

    Args:
        count: numbers of each vector.

    >>> there, back = ExactSum(1), ExactSum(1)
    >>> terms = [np.float32([x]) for x in (1e6, 1e-9, -1e6, 0.1)]
    >>> for one, other in zip(terms, terms[::-1]):
    ...     there.add(one)
    ...     back.add(other)
    >>> there.total().tolist() == back.total().tolist() == [float(terms[1][0]) + float(terms[3][0])]
    True
    """

    def __init__(self, count: int) -> None:
        self._coarse = np.zeros(count)
        self._fine = np.zeros(count)
        self.terms = 0

    def add(self, term: npt.NDArray[Any]) -> None:
        """Add one vector.

        Raises:
            ConfigurationError: it has another length, is the 65,537th, or holds a number beyond
                ±2²⁰ or none; nothing was added then.
        """
        flat = term.reshape(-1)
        if flat.shape != self._coarse.shape or self.terms == MOST_TERMS:
            raise ConfigurationError(
                f"{flat.size} numbers as term {self.terms + 1} of {self._coarse.size}"
            )
        if flat.size and not max(-float(flat.min()), float(flat.max())) <= _LARGEST:
            raise ConfigurationError("a term holds numbers beyond ±2^20, or that are none")
        for start in range(0, flat.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            rest = flat[part].astype(np.float64)
            coarse = (rest + _TO_COARSE) - _TO_COARSE
            rest -= coarse
            self._coarse[part] += coarse
            self._fine[part] += (rest + _TO_FINE) - _TO_FINE
        self.terms += 1

    def total(self) -> npt.NDArray[np.float64]:
        """The sum, rounded once to float64."""
        return np.asarray(self._coarse + self._fine, dtype=np.float64)
