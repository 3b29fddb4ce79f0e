"""What drops out of an example: bits of its own, wherever it stands and in whatever company.

An example's mask is made of words that no other example has, numbered so that padding moves none of
them: a token's words depend on its place among the example's tokens, not on the width of the
micro-batch. They come from AES-256 in counter mode, keyed by the run's secret and the step; a block
of the counter is (example, call, place), so secrecy rests on AES, as sampling's and noise's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dpacc.randomness.run_secret import WORDS_PER_BLOCK, KeyedStream

RATE_STEPS = 1 << 16
"""Rates are rounded to multiples of 2⁻¹⁶, and what is kept is scaled by the rounded rate."""

EVERYBODY = (1 << 40) - 1
"""Stands for all examples at once: what it draws, each of them sees."""

MADE_UP = EVERYBODY - 1
"""Stands for every invented example, so that one has the same masks beside any others."""

_CALL_BITS, _PLACE_BITS = 24, 64
_DRAWS_PER_WORD = 4

Mask = npt.NDArray[np.bool_]


class ExampleMasks:
    """The masks of all examples at one step.

    Args:
        stream: of the step's secret words.

    >>> from dpacc.randomness.run_secret import RunSecret
    >>> stream = RunSecret.from_fixed_seed(0).stream(purpose="dropout", step=3)
    >>> masks = ExampleMasks(stream)
    >>> short, long = (masks.kept(example=7, call=0, shape=(t, 4), threshold=9999) for t in (2, 5))
    >>> bool((short == long[:2]).all())
    True
    """

    def __init__(self, stream: KeyedStream) -> None:
        self._stream = stream

    def kept(
        self,
        *,
        example: int,
        call: int,
        shape: Sequence[int],
        threshold: int,
        first: int = 0,
    ) -> Mask:
        """Which numbers of one example's tensor stay, each with probability 1 − threshold/2¹⁶.

        Args:
            example: its number in the dataset.
            call: the how manieth draw of the forward this is.
            shape: of the tensor without the examples' dimension: [features], [tokens, features],
                or attention's [heads, queries, keys].
            threshold: the rate in steps of 2⁻¹⁶.
            first: how many places of padding stand before the first token; they drop nothing.
        """
        mask = np.ones(shape, dtype=bool)
        if len(shape) == 3:
            heads, queries, keys = shape
            size = max(queries, keys) - first
            stays = self._draws(example, call, size * size * heads) >= threshold
            places = _shells(size)[: queries - first, : keys - first]
            mask[:, first:, first:] = stays.reshape(-1, heads)[places].transpose(2, 0, 1)
        elif shape:
            rest = mask[first:]
            drawn = self._draws(example, call, rest.size).reshape(rest.shape)
            np.greater_equal(drawn, threshold, out=rest)
        else:
            mask[()] = self._draws(example, call, 1)[0] >= threshold
        return mask

    def uniform(self, *, call: int) -> float:
        """A number in [0, 1) that all examples see alike."""
        words = self._stream.words(start=_first_word(EVERYBODY, call), count=1)
        return float(int(words[0]) >> 11) * 2.0**-53

    def _draws(self, example: int, call: int, count: int) -> npt.NDArray[np.uint16]:
        words = self._stream.words(
            start=_first_word(example, call), count=-(-count // _DRAWS_PER_WORD)
        )
        return words.view("<u2")[:count]


def _first_word(example: int, call: int) -> int:
    block = ((example << _CALL_BITS) | call) << _PLACE_BITS
    return WORDS_PER_BLOCK * block


@lru_cache(maxsize=4)
def _shells(size: int) -> npt.NDArray[np.intp]:
    """Numbers of the pairs (query, key) under which a smaller square's are the first ones.

    >>> _shells(3).tolist()
    [[0, 3, 7], [1, 2, 8], [4, 5, 6]]
    """
    query, key = np.ogrid[:size, :size]
    below = query * query + key
    above = key * key + key + 1 + query
    return np.where(key <= query, below, above)
