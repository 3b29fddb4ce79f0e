"""Which optimizer takes the private gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dpacc.recipe.config import TrainingConfig

MOMENTUM = 0.9


def optimizer_for(
    parameters: Iterable[nn.Parameter], *, config: TrainingConfig
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, as the settings ask.

    AdamW divides every coordinate by its own size. Where noise outweighs the gradient all
    coordinates are of one size, so it moves those that hold nothing but noise as far as those that
    hold what is learned. SGD moves each by what it is.

    >>> config = TrainingConfig(model="m", train_data="d.jsonl", epsilon=8.0, steps=1,
    ...                         expected_batch_size=8, optimizer="sgd", learning_rate=0.3)
    >>> type(optimizer_for([nn.Parameter(torch.zeros(1))], config=config)).__name__
    'SGD'
    """
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, **shared)
    return torch.optim.AdamW(parameters, **shared)
