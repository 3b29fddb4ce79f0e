"""Where a monotone function changes sign: one safe root finder for every solver here."""

from __future__ import annotations

from collections.abc import Callable


def last_negative(
    *,
    function: Callable[[float], float],
    low: float,
    high: float,
    tolerance: float,
    steps: int = 200,
) -> tuple[float, float]:
    """A bracket `(a, b)` of the root of an increasing `function`: f(a) < 0 <= f(b).

    Illinois false position, so smooth functions converge superlinearly, falling back to halving
    whenever a step shrinks the bracket too little.

    Args:
        function: increasing; f(low) < 0 <= f(high) is the caller's promise.
        low: left end of the search.
        high: right end of the search.
        tolerance: stop when b − a <= tolerance · max(|a|, |b|).
        steps: evaluations after which the bracket is returned as it is.

    >>> a, b = last_negative(function=lambda x: x * x - 2, low=0.0, high=2.0, tolerance=1e-12)
    >>> a * a < 2 <= b * b
    True
    """
    f_low, f_high = function(low), function(high)
    for step in range(steps):
        if high - low <= tolerance * max(abs(low), abs(high)):
            break
        width = high - low
        middle = 0.5 * (low + high) if step % 3 == 2 else _secant(low, high, f_low, f_high)
        # Step slightly past the root: the far end of the bracket then moves as well.
        value = function(middle)
        if value < 0:
            low, f_low = middle, value
            f_high *= 0.5
        else:
            high, f_high = middle, value
            f_low *= 0.5
        if width == high - low:
            break
    return low, high


def _secant(low: float, high: float, f_low: float, f_high: float) -> float:
    if not (f_low > -1e300 and 0 < f_high < 1e300):
        return 0.5 * (low + high)
    guess = low - f_low * (high - low) / (f_high - f_low)
    margin = 1e-3 * (high - low)
    return min(max(guess, low + margin), high - margin)
