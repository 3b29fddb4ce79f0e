"""Mixtures of experts: which of their layers see the tokens of all examples in one row."""

from __future__ import annotations

from torch import nn

from dpacc.errors import PrivacyError

_ROUTERS = ("gate", "router")


def routed_layers(model: nn.Module) -> list[str]:
    """Names of everything with parameters inside the blocks that send tokens to experts.

    A router, the experts and a shared expert beside them are given [examples · tokens, features],
    whole or sorted by expert, so that their gradients cannot be told apart by example.
    """
    blocks = [name for name, module in model.named_modules() if _sends_to_experts(module)]
    return [
        name
        for name, module in model.named_modules()
        if any(name.startswith(f"{block}.") for block in blocks)
        and any(True for _ in module.parameters(recurse=False))
    ]


def names_in_every_block(model: nn.Module) -> list[str]:
    """The last parts of their names, one for all blocks, by which PEFT leaves them out."""
    return sorted({".".join(name.split(".")[-2:]) for name in routed_layers(model)})


def refuse_routed_layers(model: nn.Module) -> None:
    """Refuse adapters on what sees the tokens of all examples in one row.

    Raises:
        PrivacyError: there are some, with what to leave out.
    """
    inside = routed_layers(model)
    for name in inside:
        if any(p.requires_grad for p in model.get_submodule(name).parameters()):
            raise PrivacyError(
                f"{name} is part of a mixture of experts, which sees the tokens of all examples in "
                "one row, so its gradient cannot be told apart by example; adapt the attention "
                "alone, with target_modules=['q_proj', 'v_proj'] in place of 'all-linear'"
            )


def _sends_to_experts(module: nn.Module) -> bool:
    has_router = any(hasattr(module, name) for name in _ROUTERS)
    return has_router and isinstance(getattr(module, "experts", None), nn.Module)
