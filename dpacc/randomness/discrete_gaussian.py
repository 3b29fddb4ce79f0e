"""Discrete Gaussian noise, exactly: integers whose chances no rounding has touched.

Floating-point noise can betray what it hides, because not every double can come out of a sampler
(arXiv 2107.10138). Here every draw is decided as if with infinitely many binary digits: in doubles
where they leave no doubt, else with as many digits as it takes. So the noise is also the same on
every machine, whatever its logarithm rounds to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

from dpacc.randomness.run_secret import KeyedStream, RunSecret, draw_in_chunks

LARGEST_SCALE = 1 << 44
"""Above it doubles leave too much in doubt."""

_CHUNK = 1 << 15
_DOUBT = 2.0**-48
"""Relative error of a double's logarithm or exponential, with sixteen times what is observed."""
_DIGITS_PER_DRAW = 32
_DECIMAL_ERROR = Decimal(10) ** -60

Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def discrete_gaussians(
    *, secret: RunSecret, step: int, purpose: str, scale: int, count: int, threads: int = 1
) -> Integers:
    """`count` independent integers k with chance ∝ e^(−k²/2σ²), for one logical step.

    Element i depends on (secret, purpose, step, i) alone. A discrete Laplace magnitude
    ⌊−σ·ln U⌋ is accepted with chance e^(−(k−σ)²/2σ²) (arXiv 2004.00010, algorithm 3).

    Args:
        secret: keys the draws.
        step: the logical step.
        purpose: what they are for; each purpose has draws of its own.
        scale: σ, a whole number.
        count: how many.
        threads: how many cores draw; no effect on the result.

    Raises:
        ValueError: σ is not a whole number in [1, 2⁴⁴].

    >>> secret = RunSecret.from_fixed_seed(0)
    >>> few, many = (
    ...     discrete_gaussians(secret=secret, step=1, purpose="noise", scale=10, count=n)
    ...     for n in (3, 500)
    ... )
    >>> bool((few == many[:3]).all())
    True
    """
    if not 1 <= scale <= LARGEST_SCALE:
        raise ValueError(f"scale={scale} is not a whole number in [1, {LARGEST_SCALE}]")
    drawn = np.empty(count, dtype=np.int64)

    def draw(chunk: int) -> None:
        source = _Source(secret=secret, step=step, purpose=f"{purpose}/{chunk}")
        start = chunk * _CHUNK
        drawn[start : start + _CHUNK] = _draw_chunk(source, scale)[: count - start]

    draw_in_chunks(draw, range(-(-count // _CHUNK)), threads=threads)
    return drawn


class _Source:
    """The words of one chunk, and the binary digits that follow each of them."""

    def __init__(self, *, secret: RunSecret, step: int, purpose: str) -> None:
        self._words: KeyedStream = secret.stream(purpose=purpose, step=step)
        self._digits: KeyedStream = secret.stream(purpose=f"{purpose}/digits", step=step)

    def words(self, start: int, count: int) -> Words:
        return self._words.words(start=start, count=count)

    def more_digits(self, position: int, words: int) -> int:
        """The 64·words digits after those of the word at `position`, as an integer."""
        start = position * _DIGITS_PER_DRAW
        drawn = self._digits.words(start=start, count=_DIGITS_PER_DRAW)[:words]
        return int.from_bytes(drawn.astype(">u8").tobytes(), "big")


def _draw_chunk(source: _Source, scale: int) -> Integers:
    chosen = np.empty(_CHUNK, dtype=np.int64)
    waiting, position = np.arange(_CHUNK), 0
    while len(waiting):
        words = source.words(position, 2 * len(waiting))
        positions = position + 2 * np.arange(len(waiting))
        magnitudes = _laplace_magnitudes(source, words[0::2] >> np.uint64(1), positions, scale)
        taken = _accepted(source, words[1::2], positions + 1, magnitudes, scale)
        negative = (words[0::2] & np.uint64(1)).astype(bool)
        taken &= ~(negative & (magnitudes == 0))  # or zero would come twice as often
        chosen[waiting[taken]] = np.where(negative, -magnitudes, magnitudes)[taken]
        waiting, position = waiting[~taken], position + len(words)
    return chosen


def _laplace_magnitudes(source: _Source, heads: Words, positions: Integers, scale: int) -> Integers:
    """⌊−σ·ln U⌋ for uniform U whose first 63 digits are `heads`."""
    uniforms = (heads + 0.5) * 2.0**-63
    losses = -np.log(uniforms)
    values = losses * scale
    error = scale * ((1 + losses) * _DOUBT + 2.0**-63 / uniforms)
    magnitudes: Integers = np.floor(values).astype(np.int64)
    for index in np.flatnonzero(np.abs(values - np.rint(values)) <= error):

        def magnitude(low: Decimal, high: Decimal) -> int | None:
            least = (-scale * high.ln()) * (1 - _DECIMAL_ERROR)
            most = -scale * low.ln() * (1 + _DECIMAL_ERROR) if low else Decimal("Infinity")
            settled = most.is_finite() and math.floor(least) == math.floor(most)
            return math.floor(least) if settled else None

        magnitudes[index] = _settle(magnitude, source, int(heads[index]), 63, int(positions[index]))
    return magnitudes


def _accepted(
    source: _Source, heads: Words, positions: Integers, magnitudes: Integers, scale: int
) -> Booleans:
    """Whether V < e^(−(k−σ)²/2σ²) for uniform V whose first 64 digits are `heads`."""
    uniforms = (heads + 0.5) * 2.0**-64
    exponents = ((magnitudes - scale) / scale) ** 2 / 2
    chances = np.exp(-exponents)
    error = (chances * (1 + exponents) + uniforms) * _DOUBT + 2.0**-63
    accepted: Booleans = uniforms < chances
    for index in np.flatnonzero(np.abs(uniforms - chances) <= error):
        distance = int(magnitudes[index]) - scale

        def below(low: Decimal, high: Decimal, distance: int = distance) -> int | None:
            chance = (-Decimal(distance**2) / (2 * scale**2)).exp()
            if high <= chance * (1 - _DECIMAL_ERROR):
                return 1
            return 0 if low >= chance * (1 + _DECIMAL_ERROR) else None

        settled = _settle(below, source, int(heads[index]), 64, int(positions[index]))
        accepted[index] = bool(settled)
    return accepted


def _settle(
    decide: Callable[[Decimal, Decimal], int | None],
    source: _Source,
    head: int,
    bits: int,
    position: int,
) -> int:
    """Read more digits of a uniform number until a decision holds for all that may follow."""
    for words in range(_DIGITS_PER_DRAW + 1):
        length = bits + 64 * words
        digits = (head << (64 * words)) | (source.more_digits(position, words) if words else 0)
        with localcontext() as context:
            context.prec = length + 40  # holds digits / 2^length exactly
            unit = Decimal(2) ** -length
            decision = decide(digits * unit, (digits + 1) * unit)
        if decision is not None:
            return decision
    raise ArithmeticError(f"{length} digits of a random number did not decide it")
