"""Which parameters an optimizer must hold, where each rank has all of it."""

from __future__ import annotations

import torch
from torch import nn

from dpacc.errors import PrivacyError


def admit_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that holds other parameters than the model's trainable ones."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in held:
            raise PrivacyError(
                f"the optimizer does not hold the trainable parameter {name}; build it from "
                "[p for p in model.parameters() if p.requires_grad]"
            )
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    strangers = len(held - trainable)
    if strangers:
        raise PrivacyError(
            f"the optimizer holds {strangers} parameters that are frozen or not the model's; "
            "build it from [p for p in model.parameters() if p.requires_grad]"
        )
