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
from dpacc.layers.kernels.choice import fused_on
from dpacc.layers.operators import layer_operator
from dpacc.ranks.collectives import is_undivided

MOST_FUSED_RANK = 64
"""Of a kernel that makes xAᵀ again beside every 128 columns of the output."""


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
    if not plain or drops or a.bias is not None or x.dtype != base.weight.dtype:
        return None
    lower_places = getattr(a, "places", None)
    return _fused_lora(
        x, base.weight, base.bias, a.weight, b.weight, layer.scaling[name], lower_places, b.places
    )


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


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lower: Tensor,
    upper: Tensor,
    scale: float,
    lower_places: Tensor | None,
    places: Tensor,
) -> tuple[Tensor, Tensor]:
    if fused_on(x.device) and len(lower) <= MOST_FUSED_RANK:
        from dpacc.layers.kernels.lora_forward import lora_forward

        return lora_forward(x, weight, bias, lower, upper, scale=scale)
    low = F.linear(x, lower.to(x.dtype))
    total = owned(F.linear(x, weight, bias))
    total.view(-1, total.shape[-1]).addmm_(
        low.view(-1, low.shape[-1]), upper.to(x.dtype).t(), alpha=scale
    )
    return total, low


def _backward(
    gradient: Tensor,
    wanted: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lower: Tensor,
    upper: Tensor,
    scale: float,
    lower_places: Tensor | None,
    places: Tensor,
    low: Tensor,
) -> Tensor:
    buffer, (upper_slot, _) = GradientBuffer.told_by(places)
    if upper_slot is not None:
        buffer.write_products(upper_slot, gradient, low * scale)
    of_low = (gradient @ upper.to(gradient.dtype)) * scale
    lower_slot = None if lower_places is None else GradientBuffer.told_by(lower_places)[1][0]
    if lower_slot is not None:
        buffer.write_products(lower_slot, of_low, x)
    if not wanted:
        return x.new_empty(0)
    of_x = gradient @ weight
    of_x.view(-1, of_x.shape[-1]).addmm_(
        of_low.view(-1, of_low.shape[-1]), lower.to(gradient.dtype)
    )
    return of_x


def _shapes(x: Tensor, weight: Tensor, bias: Any, lower: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    each = (x.new_empty(*x.shape[:-1], len(factor)) for factor in (weight, lower))
    total, low = each
    return total, low


_fused_lora = layer_operator(
    name="fused_lora", forward=_forward, backward=_backward, shapes=_shapes
)
