"""The transformer blocks of a model, in order, and the first of them that is trained."""

from __future__ import annotations

from torch import nn

from dpacc.errors import ConfigurationError


def transformer_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's blocks from the bottom up: its list of as many modules as it says it has layers.

    Args:
        model: a Hugging Face model, plain or wrapped by PEFT.

    Raises:
        ConfigurationError: it has no such list.
    """
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ConfigurationError(
        f"{type(model).__name__} has no list of {depth} blocks (config.num_hidden_layers), so its "
        "top layers are not known; leave lora_top_layers and cache_frozen_activations out"
    )


def first_trained_block(model: nn.Module) -> int:
    """How many blocks lie beneath everything that is trained; a head may be trained beyond them.

    Raises:
        ConfigurationError: none, or something is trained in the body but outside the blocks.
    """
    blocks = transformer_blocks(model)
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    inside = {id(p) for p in blocks.parameters()}
    inside |= {id(p) for p in _heads(model)}
    outside = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in inside]
    if outside or True not in trained[1:] or trained[0]:
        raise ConfigurationError(
            f"{outside[0] if outside else 'the lowest block'} is trained, so no activation beneath "
            "stays as it is; set lora_top_layers below the number of layers"
        )
    return trained.index(True)


def _heads(model: nn.Module) -> list[nn.Parameter]:
    """What a model has beyond its body, which sees nothing but the last block's output."""
    whole = next((m for m in model.modules() if hasattr(m, "base_model_prefix")), model)
    body = getattr(whole, getattr(whole, "base_model_prefix", ""), whole)
    within = {id(p) for p in body.parameters()}
    return [p for p in whole.parameters() if id(p) not in within]
