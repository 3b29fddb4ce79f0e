"""Layers whose backward yields one gradient per example instead of one per parameter.

A trainable layer keeps its parameters, its name and its place in the model; only its class
changes. Its backward writes every example's gradient to a buffer that the engine owns and
returns none for the weight, so autograd, DDP, FSDP or ZeRO never see an unclipped gradient.
The backward of a layer runs once a pass, also under activation checkpointing, which repeats
forwards only; the frozen base, quantized or not, is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.layers.fused_lora import owned
from dpacc.layers.gradient_buffer import GradientBuffer, Layout
from dpacc.layers.heads import PerExampleEmbedding, PerExampleLayerNorm
from dpacc.layers.in_place_lora import add_in_place
from dpacc.layers.memory_saving_layers import keep_fewer_activations
from dpacc.layers.operators import layer_operator
from dpacc.layers.packed_weights import unpack_by_tiles
from dpacc.layers.whitening import WhitenedLinear
from dpacc.ranks.backends.held_parameters import named_modules


class PerExampleLinear(nn.Linear):
    """A linear layer y = xWᵀ + b that yields ∂ℓᵢ/∂W = gᵢᵀxᵢ for every example i.

    Inputs are [examples, ..., in_features]. The arithmetic runs in the input's dtype (as under
    autocast); the stored gradients are fp32.
    """

    gradient_buffer: GradientBuffer
    places: Tensor

    def forward(self, input: Tensor, onto: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """The layer's output, [examples, ..., out_features].

        Args:
            input: [examples, ..., in_features].
            onto: added to, in place, and returned: onto + scale·(xWᵀ), for a layer without bias.
            scale: of what is added.
        """
        if onto is None:
            return _per_example_linear(input, self.weight, self.bias, self.places)
        if torch.compiler.is_compiling():  # which makes one pass of the sum by itself
            scaled = input.to(onto.dtype) * scale
            return onto + _per_example_linear(scaled, self.weight, None, self.places)
        total: Tensor = _PerExampleSum.apply(  # type: ignore[no-untyped-call]
            onto, input.to(onto.dtype), self.weight, scale, self.places
        )
        return total


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, places: Tensor) -> Tensor:
    cast = input.dtype
    return owned(F.linear(input, weight.to(cast), None if bias is None else bias.to(cast)))


def _backward(
    gradient: Tensor,
    wanted: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Tensor,
) -> Tensor:
    buffer, (weight_slot, bias_slot) = GradientBuffer.told_by(places)
    if weight_slot is not None:
        buffer.write_products(weight_slot, gradient, input)
    if bias_slot is not None:
        tokens = buffer.by_example(gradient)
        buffer.write(bias_slot, tokens.sum(dim=1, dtype=torch.float32))
    if not wanted:
        return input.new_empty(0)
    return (gradient @ weight.to(gradient.dtype)).to(input.dtype)


def _shapes(input: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return input.new_empty(*input.shape[:-1], len(weight))


_per_example_linear = layer_operator(
    name="per_example_linear", forward=_forward, backward=_backward, shapes=_shapes
)


class _PerExampleSum(torch.autograd.Function):
    """y + s·xWᵀ, in y's place; s meets the few numbers of x, never the many of y."""

    @staticmethod
    def forward(
        ctx: Any, onto: Tensor, input: Tensor, weight: Tensor, scale: float, places: Tensor
    ) -> Tensor:
        ctx.mark_dirty(onto)
        ctx.places, ctx.scale = places, scale
        ctx.save_for_backward(input, weight)
        onto.view(-1, onto.shape[-1]).addmm_(
            input.reshape(-1, input.shape[-1]), weight.to(input.dtype).t(), alpha=scale
        )
        return onto

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = output_gradients
        input, weight = ctx.saved_tensors
        buffer, (slot, _) = GradientBuffer.told_by(ctx.places)
        if slot is not None:
            buffer.write_products(slot, gradient, input * ctx.scale)
        of_input = None
        if ctx.needs_input_grad[1]:
            of_input = (gradient @ weight.to(gradient.dtype)) * ctx.scale
        return gradient, of_input, None, None, None


_FLATTEN_TOKENS = {"opt"}
"""Families whose feed-forward layers see [examples · tokens, features], example after example."""

PER_EXAMPLE_RULES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PerExampleLinear,
    nn.Embedding: PerExampleEmbedding,
    nn.LayerNorm: PerExampleLayerNorm,
    WhitenedLinear: WhitenedLinear,
}
"""Layer types that may be trained, and the class that yields their per-example gradients."""


def trainable_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that directly holds a trainable parameter, by name."""
    for name, module in named_modules(model):
        if any(p is not None and p.requires_grad for p in module._parameters.values()):
            yield name, module


def attach_gradient_buffer(model: nn.Module) -> GradientBuffer:
    """Make every trainable layer of `model` write to one new buffer.

    The layers must all have a rule; `dpacc.step.admission.trainable` checks that first.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    buffer = GradientBuffer(
        Layout(parameters), tokens_may_be_flattened=model_type in _FLATTEN_TOKENS
    )
    for _, layer in trainable_layers(model):
        rule = PER_EXAMPLE_RULES.get(type(layer))
        if rule is not None:
            layer.__class__ = rule
        layer.gradient_buffer = buffer  # type: ignore[assignment]
        layer.places = buffer.places_of(layer)
    keep_fewer_activations(model)
    _compute_in_the_base_dtype(model)
    _keep_quantized_layers_differentiable(model)
    unpack_by_tiles(model)
    add_in_place(model, upper=PerExampleLinear)
    return buffer


def _compute_in_the_base_dtype(model: nn.Module) -> None:
    """Stop PEFT from casting whole activations to the adapters' fp32; the layer casts weights.

    A layer with a frozen factor, as in FFA-LoRA, cannot: that factor is a plain linear layer.
    """
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            factors = [p for name, p in module.named_parameters() if "lora_" in name]
            module.cast_input_dtype_enabled = not all(p.requires_grad for p in factors)  # type: ignore[assignment]


def _keep_quantized_layers_differentiable(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for CPU inference.

    The first evaluation would do so for good, and the packed layer silently cuts the graph.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
