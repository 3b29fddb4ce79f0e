"""Which optimizer takes the private gradient, and at which rate under noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from dpacc.recipe.config import TrainingConfig

MOMENTUM = 0.9
_WALK, _LARGEST = 48.0, 0.025


def rate_under_noise(*, trained: int, steps: int) -> float:
    """AdamW's peak rate where none is said: η = 48/√(d·T), and 0.025 at most.

    Where noise outweighs the gradient AdamW moves every coordinate by about η in each step, in
    directions that have nothing to do with those of other steps. After T of them d coordinates are
    η·√(d·T) from where they began, having learned nothing, and that length, not η, is what a model
    bears: the best η of one layer and of six differ by as much. docs/utility.md says where 48 was
    measured, and no larger η was good there.

    Args:
        trained: d, the trained parameters.
        steps: T.

    >>> round(rate_under_noise(trained=460_800, steps=20), 4)
    0.0158
    >>> rate_under_noise(trained=1_000, steps=20)
    0.025
    """
    return min(_LARGEST, _WALK / math.sqrt(trained * steps))


def optimizer_for(
    parameters: Iterable[nn.Parameter], *, config: TrainingConfig, rate: float
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, as the settings ask, at a peak learning rate.

    AdamW divides every coordinate by its own size. Where noise outweighs the gradient all
    coordinates are of one size, so it moves those that hold nothing but noise as far as those that
    hold what is learned. SGD moves each by what it is.

    >>> config = TrainingConfig(model="m", train_data="d.jsonl", epsilon=8.0, steps=1,
    ...                         expected_batch_size=8, optimizer="sgd", learning_rate=0.3)
    >>> weights = [nn.Parameter(torch.zeros(1))]
    >>> type(optimizer_for(weights, config=config, rate=0.3)).__name__
    'SGD'
    """
    shared: dict[str, Any] = {"lr": rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, **shared)
    return torch.optim.AdamW(parameters, **shared)


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
