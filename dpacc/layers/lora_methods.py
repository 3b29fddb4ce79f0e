"""Which of LoRA's two matrices learn under noise: both, or the upper one alone."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from dpacc.errors import ConfigurationError, choices

Method = Literal["lora", "ffa"]

_LOWER = ("lora_A", "lora_embedding_A")


def apply_method(model: nn.Module, optimizer: torch.optim.Optimizer, method: Method) -> None:
    """Freeze what `method` does not train, and take it out of the optimizer.

    In s·B(Ax), "ffa" keeps A as it was drawn, so that the update is linear in what is learned and
    noise on A never meets noise on B (FFA-LoRA, arXiv 2403.12313).

    Raises:
        ConfigurationError: an unknown method, or "ffa" for a model without LoRA adapters.
    """
    if method not in get_args(Method):
        raise ConfigurationError(
            f"method={method!r} must be one of {choices(method, get_args(Method))}"
        )
    if method == "lora":
        return
    frozen = {id(parameter) for parameter in freeze_lower(model)}
    if not frozen:
        raise ConfigurationError(
            "method='ffa' trains the B of LoRA adapters and this model has none to train; add "
            "them with peft.get_peft_model, or choose method='lora'"
        )
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in frozen]


def freeze_lower(model: nn.Module) -> list[nn.Parameter]:
    """Keep every trainable A as it was drawn; which they are."""
    lower = [p for name, p in model.named_parameters() if _is_lower(name) and p.requires_grad]
    for parameter in lower:
        parameter.requires_grad_(False)
    return lower


def _is_lower(name: str) -> bool:
    return any(part in _LOWER for part in name.split("."))
