"""A model with adapters, of full size, that weighs nothing: shapes on torch's meta device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig
from transformers.quantizers.base import get_keys_to_not_convert

from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.blocks import transformer_blocks
from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.recipe.assembly import adapters_for
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import FAMILIES
from dpacc.recipe.settings import Quantization

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NF4_BLOCK, _NF4_BLOCK_OF_SCALES, _NF4_CODES = 64, 256, 4 * (16 + 256 + 1)


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """The model as the engine would train it, and what its parts weigh in bytes.

    Attributes:
        model: on the meta device, with adapters that write to `buffer`.
        buffer: where per-example gradients go.
        base_bytes: the frozen base as it is stored, with its buffers.
        block_bytes: the largest transformer block of the base.
        outside_bytes: the base outside the transformer blocks: embeddings and head.
        trainable: trainable parameters, all fp32.
        element_bytes: of one number as a sharded base counts it: packed NF4 and int8 are bytes.
    """

    model: nn.Module
    buffer: GradientBuffer
    base_bytes: int
    block_bytes: int
    outside_bytes: int
    trainable: int
    element_bytes: int


def build_skeleton(*, config: TrainingConfig, architecture: PretrainedConfig) -> Skeleton:
    """Build base and adapters as the recipe would, without weights.

    Raises:
        ConfigurationError: no model for the task has this architecture, or a setting does not
            fit it.
    """
    # As the recipe loads it: a quantized base computes in bfloat16 unless dtype says otherwise.
    saved_in = getattr(architecture, "dtype", None) or torch.float32
    otherwise = saved_in if config.quantization == "none" else torch.bfloat16
    if config.labels is not None:
        architecture.num_labels = len(config.labels)
    compute = _PRECISIONS.get(config.dtype, otherwise)
    try:
        with torch.device("meta"):
            base = FAMILIES[config.task].from_config(
                architecture, dtype=compute, trust_remote_code=False
            )
    except ValueError as error:
        raise ConfigurationError(
            f"model={config.model} ({architecture.model_type}) has no form for "
            f"task={config.task}: choose another model or task"
        ) from error
    base.requires_grad_(False)
    base.config.use_cache = False
    if base.config.pad_token_id is None:  # as the recipe does; which one changes no shape
        base.config.pad_token_id = 0
    stored = _store_quantized(base, config.quantization)
    with torch.device("meta"):
        adapted = adapters_for(config=config, base=base)
    blocks = [_frozen_bytes(block, stored) for block in transformer_blocks(adapted)]
    base_bytes = _frozen_bytes(adapted, stored)
    buffer = attach_gradient_buffer(adapted)
    return Skeleton(
        model=adapted.train(),
        buffer=buffer,
        base_bytes=base_bytes,
        block_bytes=max(blocks),
        outside_bytes=base_bytes - sum(blocks),
        trainable=buffer.layout.width,
        element_bytes=compute.itemsize if config.quantization == "none" else 1,
    )


def nf4_bytes(*, elements: int) -> int:
    """What bitsandbytes stores of a weight in NF4 with doubly quantized scales (arXiv 2305.14314).

    Four bits an element, eight bits a scale of 64 elements, 32 bits a scale of 256 scales, and two
    tables of codes.

    >>> round(8 * nf4_bytes(elements=4096 * 4096) / 4096**2, 3)
    4.127
    """
    scales = math.ceil(elements / _NF4_BLOCK)
    return elements // 2 + scales + 4 * math.ceil(scales / _NF4_BLOCK_OF_SCALES) + _NF4_CODES


def _store_quantized(model: nn.Module, quantization: Quantization) -> Mapping[int, int]:
    """Let linear layers compute as quantized ones; bytes of their weights, by identity."""
    if quantization == "none":
        return {}
    kept = get_keys_to_not_convert(model)
    stored = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name not in kept:
            rows, elements = layer.out_features, layer.weight.numel()
            four_bits = quantization == "nf4"
            stored[id(layer.weight)] = (
                nf4_bytes(elements=elements) if four_bits else elements + 4 * rows
            )
            layer.forward = partial(_Dequantized.run, layer)  # type: ignore[method-assign]
    return stored


class _Dequantized(torch.autograd.Function):
    """y = xWᵀ + b whose W is unpacked anew for the forward and for the backward, and not kept."""

    @staticmethod
    def run(layer: nn.Linear, input: Tensor) -> Tensor:
        output: Tensor = _Dequantized.apply(  # type: ignore[no-untyped-call]
            input, layer.weight, layer.bias
        )
        return output

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(input, torch.empty_like(weight, dtype=input.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = output_gradients
        (weight,) = ctx.saved_tensors
        return gradient @ torch.empty_like(weight, dtype=gradient.dtype), None, None


def _frozen_bytes(module: nn.Module, stored: Mapping[int, int]) -> int:
    held = [p for p in module.parameters() if not p.requires_grad]
    tensors: list[Tensor] = [*held, *module.buffers()]
    return sum(stored.get(id(t), t.numel() * t.element_size()) for t in tensors)
