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

    Inverse quadratic interpolation where the last three points allow it, halving where not
    (Chandrupatla 1997, Advances in Engineering Software 28, 145-149).

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
    # `near` is the newest point, `far` the other end of the bracket, `old` the point before.
    near, far = (low, function(low)), (high, function(high))
    share = 0.5
    for _ in range(steps):
        width = abs(far[0] - near[0])
        allowed = tolerance * max(abs(near[0]), abs(far[0]))
        if width <= allowed:
            break
        # Half the tolerance inside the bracket: a root beside an end then closes it.
        edge = min(0.5, 0.5 * allowed / width)
        place = near[0] + min(max(share, edge), 1 - edge) * (far[0] - near[0])
        if place in (near[0], far[0]):
            break
        new = (place, function(place))
        if (new[1] < 0) == (near[1] < 0):
            old = near
        else:
            old, far = far, near
        near = new
        share = _next_share(near, far, old)
    return (near[0], far[0]) if near[1] < 0 else (far[0], near[0])


def _next_share(
    near: tuple[float, float], far: tuple[float, float], old: tuple[float, float]
) -> float:
    """How far from `near` towards `far` the root seems to lie."""
    values = (near[1], far[1], old[1])
    if not all(abs(value) < 1e300 for value in values) or len(set(values)) < 3:
        return 0.5
    position = (near[0] - far[0]) / (old[0] - far[0])
    height = (near[1] - far[1]) / (old[1] - far[1])
    if not 1 - (1 - position) ** 0.5 < height < position**0.5:
        return 0.5
    inverse = near[1] / (far[1] - near[1]) * old[1] / (far[1] - old[1])
    slope = (old[0] - near[0]) / (far[0] - near[0])
    return inverse + slope * near[1] / (old[1] - near[1]) * far[1] / (old[1] - far[1])
