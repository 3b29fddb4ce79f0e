"""What a model holds now, and which of it an optimizer must hold, where each rank has all of it.

A step looks several times, for a model may have changed since the last. torch's own walk goes
through a generator for each level above a module, and spells out names that nobody reads.
"""

from __future__ import annotations

import torch
from torch import nn

from dpacc.errors import PrivacyError


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What `model.named_modules()` gives, in the same order.

    >>> [name for name, _ in named_modules(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())))]
    ['', '0', '1', '1.0']
    """
    found: dict[nn.Module, str] = {}
    ahead = [("", model)]
    while ahead:
        name, module = ahead.pop()
        if module not in found:
            found[module] = name
            children = reversed(module._modules.items())
            before = f"{name}." if name else ""
            ahead += [(before + own, child) for own, child in children if child is not None]
    return [(name, module) for module, name in found.items()]


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """What `model.parameters()` gives, in an order of its own."""
    ahead, known = [model], {model}
    for module in ahead:
        for child in module._modules.values():
            if child is not None and child not in known:
                known.add(child)
                ahead.append(child)
    every = (p for module in ahead for p in module._parameters.values() if p is not None)
    return list({id(p): p for p in every}.values())


def admit_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that holds other parameters than the model's trainable ones."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {id(p) for p in parameters(model) if p.requires_grad}
    for name, parameter in model.named_parameters() if trainable - held else ():
        if id(parameter) in trainable - held:
            raise PrivacyError(
                f"the optimizer does not hold the trainable parameter {name}; build it from "
                "[p for p in model.parameters() if p.requires_grad]"
            )
    strangers = len(held - trainable)
    if strangers:
        raise PrivacyError(
            f"the optimizer holds {strangers} parameters that are frozen or not the model's; "
            "build it from [p for p in model.parameters() if p.requires_grad]"
        )
