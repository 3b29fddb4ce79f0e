"""Bases of published shapes with random weights, made on the device, one layer after another."""

from __future__ import annotations

import copy
from typing import Any

import bitsandbytes as bnb
import torch
from shapes import SHAPES
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)


def random_base(*, shape: str, layers: int | None = None, quantized: bool = True) -> Any:
    """A causal LM whose weights are N(0, 0.02²), in bf16; never whole on any other device.

    Args:
        shape: a key of `SHAPES`.
        layers: fewer, to try a script.
        quantized: its linear layers in NF4 with doubly quantized scales, but for the head.
    """
    config = copy.deepcopy(SHAPES[shape])
    if layers is not None:
        config.num_hidden_layers = layers
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, trust_remote_code=False
        )
    if quantized:
        model = replace_with_bnb_linear(
            model, modules_to_not_convert=["lm_head"], quantization_config=NF4
        )
        model.is_loaded_in_4bit = model.is_quantized = True
        model.config.quantization_config = NF4
    rotary = {name for name, _ in model.named_buffers()}
    for module in model.modules():
        _fill(module)
    model.tie_weights()
    _restore_buffers(model, config, rotary)
    model.config.use_cache = False
    return model.requires_grad_(False)


def _fill(module: nn.Module) -> None:
    """Give the module's own parameters values; quantize them where the module is quantized."""
    for name, parameter in list(module._parameters.items()):
        if parameter is None:
            continue
        if isinstance(module, bnb.nn.Linear4bit) and name == "weight":
            shape = module.out_features, module.in_features
            drawn = torch.empty(shape, device=DEVICE).normal_(std=0.02)
            module.weight = bnb.nn.Params4bit(
                drawn.to(torch.bfloat16),
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
                module=module,
            ).to(DEVICE)
            continue
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=DEVICE)
        is_scale = name == "weight" and parameter.ndim == 1
        value = torch.ones_like(value) if is_scale else value.normal_(std=0.02)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _restore_buffers(model: nn.Module, config: Any, names: set[str]) -> None:
    """Compute anew what a constructor computes (rotary angles), from a model of one layer."""
    small = type(config)(**(config.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8}))
    small.intermediate_size = 8
    small_model = AutoModelForCausalLM.from_config(small, trust_remote_code=False)
    computed = dict(small_model.named_buffers())
    for name in names:
        owner, _, leaf = name.rpartition(".")
        one_layer = ".".join("0" if part.isdigit() else part for part in name.split("."))
        setattr(model.get_submodule(owner), leaf, computed[one_layer].to(DEVICE))
