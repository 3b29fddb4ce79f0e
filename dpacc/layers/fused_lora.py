"""A frozen linear layer and its LoRA as one operation, y = xWᵀ + b + s·(xAᵀ)Bᵀ.

Apart, both give the input a gradient, and autograd adds the two in a pass of its own; as one, the
second is added by the product that makes it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.ranks.collectives import is_undivided


def fused_output(layer: Any, name: str, x: Tensor, upper: type[nn.Module]) -> Tensor | None:
    """What a LoRA layer makes of `x` by its one plain adapter; None if only its parts can tell.

    Args:
        layer: PEFT's, whose B writes to a gradient buffer.
        name: of the adapter.
        x: [examples, ..., in_features].
        upper: the class of a B, or A, that writes to the buffer.
    """
    base, a, b = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    # A base layer that learns something itself has become an `upper` too, and is not plain.
    plain = _is_plain(base) and all(_is_plain(each, upper) for each in (a, b))
    drops = not isinstance(layer.lora_dropout[name], nn.Identity)
    buffer = getattr(b, "gradient_buffer", None)
    if not plain or drops or buffer is None or a.bias is not None or x.dtype != base.weight.dtype:
        return None
    output: Tensor = _FusedLora.apply(  # type: ignore[no-untyped-call]
        x, base.weight, base.bias, a.weight, b.weight, layer.scaling[name], buffer
    )
    return output


def owned(output: Tensor) -> Tensor:
    """The same numbers in the same memory, but no view of another tensor.

    Some models scale what a projection returns in place, which autograd forbids for a view that a
    function of one's own returns.
    """
    mine: Tensor = torch.ops.aten._unsafe_view.default(output, output.shape)
    return mine


def _is_plain(layer: Any, *more: type[nn.Module]) -> bool:
    """Whether nothing but its own undivided weight decides what a layer does."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    if type(layer) not in (nn.Linear, *more) or watched:
        return False
    return is_undivided(layer.weight)


class _FusedLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lower: Tensor,
        upper: Tensor,
        scale: float,
        buffer: GradientBuffer,
    ) -> Tensor:
        low = F.linear(x, lower.to(x.dtype))
        total = owned(F.linear(x, weight, bias))
        total.view(-1, total.shape[-1]).addmm_(
            low.view(-1, low.shape[-1]), upper.to(x.dtype).t(), alpha=scale
        )
        ctx.buffer, ctx.scale, ctx.parameters = buffer, scale, (id(lower), id(upper))
        ctx.save_for_backward(x, low, weight, lower, upper)
        return total

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = output_gradients
        x, low, weight, lower, upper = ctx.saved_tensors
        buffer: GradientBuffer = ctx.buffer
        lower_slot, upper_slot = (buffer.layout.slots.get(key) for key in ctx.parameters)
        if upper_slot is not None:
            buffer.write(upper_slot, buffer.products(gradient, low * ctx.scale))
        of_low = (gradient @ upper.to(gradient.dtype)) * ctx.scale
        if lower_slot is not None:
            buffer.write(lower_slot, buffer.products(of_low, x))
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            of_x.view(-1, of_x.shape[-1]).addmm_(
                of_low.view(-1, of_low.shape[-1]), lower.to(gradient.dtype)
            )
        return of_x, None, None, None, None, None, None
