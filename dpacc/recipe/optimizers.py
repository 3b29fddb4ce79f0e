"""Which optimizer takes the private gradient, and at which rate under noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import LoraMethod

MOMENTUM = 0.9
_WALK, _WALK_WHITENED, _LARGEST = 48.0, 12.0, 0.025
_FULL_GAIN = 4.0


def rate_under_noise(
    *, trained: int, steps: int, gain: float = _FULL_GAIN, method: LoraMethod = "lora"
) -> float:
    """AdamW's peak rate where none is said: η = min(48/√(d·T), 0.025)·min(1, √(g/4)).

    Where noise outweighs the gradient AdamW moves every coordinate by about η in each step, in
    directions that have nothing to do with those of other steps. After T of them d coordinates are
    η·√(d·T) from where they began, having learned nothing, and that length, not η, is what a model
    bears: the best η of one layer and of six differ by as much. Both of LoRA's factors go so far,
    so that B·A turns an output by about η²·T, and what a layer bears of that is a share of what its
    own weights make of an input: g, and so √g in η. Whitened adapters move A alone, on inputs that
    are white: η = min(12/√(d·T), 0.025). docs/utility.md says where these were measured.

    Args:
        trained: d, the trained parameters.
        steps: T.
        gain: g, what `gain_beneath` finds of the base; whitened adapters need none.
        method: of the adapters.

    >>> round(rate_under_noise(trained=460_800, steps=20), 4)
    0.0158
    >>> round(rate_under_noise(trained=460_800, steps=20, gain=1.0), 4)
    0.0079
    >>> rate_under_noise(trained=1_000, steps=20)
    0.025
    >>> round(rate_under_noise(trained=39_936, steps=48, method="whitened"), 4)
    0.0087
    """
    whitened = method == "whitened"
    walk = _WALK_WHITENED if whitened else _WALK
    borne = min(_LARGEST, walk / math.sqrt(trained * steps))
    return borne if whitened else borne * min(1.0, math.sqrt(gain / _FULL_GAIN))


@torch.no_grad()
def gain_beneath(model: nn.Module) -> float:
    """How large the frozen layers beneath adapters make an input: the mean of ‖W‖/√outputs.

    ‖W‖ is Frobenius', so that each is the root mean square of W·x over that of x where x is white.
    Two digits of it, which ranks, machines and dtypes agree on.

    Args:
        model: with LoRA layers, whose weights are whole, quantized or not; with none, as where a
            head alone learns, g is 4, at which a rate stays.

    >>> gain_beneath(nn.Linear(2, 2))
    4.0
    """
    from peft.tuners.lora import LoraLayer

    gains = []
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and len(layer.lora_A):
            weight = _dequantized(layer.get_base_layer())
            length = torch.linalg.vector_norm(weight, dtype=torch.float32)
            gains.append(float(length) / math.sqrt(layer.out_features))
    return float(f"{sum(gains) / len(gains):.2g}") if gains else _FULL_GAIN


def _dequantized(layer: Any) -> Tensor:
    from peft.utils.integrations import dequantize_bnb_weight

    weight: Tensor = layer.weight
    if type(weight).__name__ in ("Params4bit", "Int8Params"):
        weight = dequantize_bnb_weight(weight, state=getattr(layer, "state", None))
    return weight


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
