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
    """How many blocks lie beneath everything that is trained.

    Raises:
        ConfigurationError: none, or something is trained outside the blocks.
    """
    blocks = transformer_blocks(model)
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    inside = {id(p) for p in blocks.parameters()}
    outside = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in inside]
    if outside or True not in trained[1:] or trained[0]:
        raise ConfigurationError(
            f"{outside[0] if outside else 'the lowest block'} is trained, so no activation beneath "
            "stays as it is; set lora_top_layers below the number of layers"
        )
    return trained.index(True)
