"""LoRA's sum y + s·B(Ax) as one matrix product that adds to the frozen layer's output in place.

PEFT computes B(Ax), s times that, and the sum, each as wide as the layer's output, and copies the
output of a 4-bit layer before. Those passes over memory are what LoRA costs beside its products.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dpacc.layers.fused_lora import fused_output
from dpacc.layers.packed_weights import PackedWeight

_LAYERS = {
    ("peft.tuners.lora.layer", "Linear"),
    ("peft.tuners.lora.bnb", "Linear4bit"),
    ("peft.tuners.lora.bnb", "Linear8bitLt"),
}

_TOKENS_BEFORE_EXAMPLES = {"LongformerSelfAttention"}
"""Modules whose projections see [tokens, examples, features]."""


def add_in_place(model: nn.Module, *, upper: type[nn.Module]) -> int:
    """Let the LoRA layers of `model` add to the frozen layers' outputs; how many do.

    A layer goes PEFT's own way whenever it is anything but one plain adapter: merged, disabled,
    a variant such as DoRA, with a bias, mixed with others, under autocast.

    Args:
        model: with its adapters.
        upper: the class of a B whose forward takes `onto` and `scale`.

    >>> add_in_place(nn.Sequential(nn.Linear(2, 2)), upper=nn.Linear)
    0
    """

    tokens_first = {
        id(layer)
        for module in model.modules()
        if type(module).__name__ in _TOKENS_BEFORE_EXAMPLES
        for layer in module.modules()
    }

    def by_example(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Any:
        name = None if arguments or options else _plain_adapter(self, x, upper)
        if name is None:
            return type(self).forward(self, x, *arguments, **options)
        fused = fused_output(self, name, x, upper)
        if fused is not None:
            return fused
        packed = PackedWeight.of(self.base_layer, x)
        if packed is not None:
            lower = self.lora_A[name](self.lora_dropout[name](x)) * self.scaling[name]
            return packed.onto(self.lora_B[name](lower), x, self.base_layer.bias)
        total = self.base_layer(x)
        # A view's base may be kept for a backward of its own.
        if total._base is not None or not total.is_contiguous():
            total = total.clone(memory_format=torch.contiguous_format)
        lower = self.lora_A[name](self.lora_dropout[name](x))
        return self.lora_B[name](lower, onto=total, scale=self.scaling[name])

    def tokens_before_examples(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Any:
        return by_example(self, x.transpose(0, 1), *arguments, **options).transpose(0, 1)

    changed = 0
    for module in model.modules():
        if (type(module).__module__, type(module).__name__) in _LAYERS:
            forward = tokens_before_examples if id(module) in tokens_first else by_example
            module.forward = MethodType(forward, module)
            changed += 1
    return changed


def _plain_adapter(layer: Any, x: Tensor, upper: type[nn.Module]) -> str | None:
    """The one adapter that `layer` applies to `x`, if it is as LoRA was first described."""
    if layer.disable_adapters or layer.merged or _autocasts(x.device.type):
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or active[0] in getattr(layer, "lora_variant", ()):
        return None
    matrix = layer.lora_B[active[0]]
    kind: type = type(matrix)
    casts = layer.cast_input_dtype_enabled and x.dtype != layer.lora_A[active[0]].weight.dtype
    plain = kind is upper and matrix.bias is None and not casts
    return active[0] if plain else None


def _autocasts(device: str) -> bool:
    """Whether operations on that kind of device choose their dtypes themselves now."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
