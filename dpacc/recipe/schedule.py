"""The learning rate of a short run under noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


def schedule_for(*, warmup: int, steps: int, holds: bool) -> Callable[[int], float]:
    """The share of the peak learning rate at each step.

    Args:
        warmup: steps of linear warm-up.
        steps: T.
        holds: whether it then stays at its peak, as the mean of iterates wants it; otherwise it
            decays to zero.
    """
    if holds:
        return partial(warm_up_then_hold, warmup=warmup)
    return partial(warm_up_then_decay, warmup=warmup, steps=steps)


def warm_up_then_hold(step: int, *, warmup: int) -> float:
    """Linear up, then the peak.

    >>> [warm_up_then_hold(step, warmup=1) for step in range(3)]
    [0.5, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / (warmup + 1))


def warm_up_then_decay(step: int, *, warmup: int, steps: int) -> float:
    """Linear up, then linear down to zero.

    >>> [warm_up_then_decay(step, warmup=1, steps=4) for step in range(5)]
    [0.5, 1.0, 0.6666666666666666, 0.3333333333333333, 0.0]
    """
    if step < warmup:
        return warm_up_then_hold(step, warmup=warmup)
    return max(0.0, (steps - step) / (steps - warmup))
