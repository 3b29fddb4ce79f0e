"""The learning rate of a short run under noise."""

from __future__ import annotations


def warm_up_then_decay(step: int, *, warmup: int, steps: int) -> float:
    """The share of the peak learning rate at a step: linear up, then linear down to zero.

    >>> [warm_up_then_decay(step, warmup=1, steps=4) for step in range(5)]
    [0.5, 1.0, 0.6666666666666666, 0.3333333333333333, 0.0]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (steps - step) / (steps - warmup))
