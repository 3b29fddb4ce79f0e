"""Gated feed-forward layers that keep two activations for the backward instead of three.

`act(gate) · up` as two operations keeps gate, act(gate) and up, each as wide as the layer, which
is the widest thing in a transformer block. As one operation it keeps gate and up, and makes
act(gate) again in the backward: one pass over memory for a sixth of what a block keeps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]

_FORMULA = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
_FORWARDS = (
    ["def forward(self, x):", f"down_proj = {_FORMULA}", "return down_proj"],
    ["def forward(self, x):", f"return {_FORMULA}"],
)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activation(gate) * up

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = output_gradients
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            leaf = gate.detach().requires_grad_()
            activated = ctx.activation(leaf)
        (of_gate,) = torch.autograd.grad(activated, leaf, gradient * up)
        return of_gate, gradient * activated.detach(), None


def _leaner_forward(self: Any, x: Tensor) -> Any:
    product = _GatedProduct.apply(  # type: ignore[no-untyped-call]
        self.gate_proj(x), self.up_proj(x), self.act_fn
    )
    return self.down_proj(product)


def keep_fewer_activations(model: nn.Module) -> int:
    """Let every gated feed-forward layer of `model` keep two activations; how many layers did.

    Only a class whose forward is, word for word, the one of Llama and its kin is touched; all
    others stay as they are. The result is bit for bit the same.

    >>> keep_fewer_activations(nn.Sequential(nn.Linear(2, 2)))
    0
    """
    layers = [module for module in model.modules() if _is_gated(module)]
    for layer in layers:
        layer.forward = MethodType(_leaner_forward, layer)
    return len(layers)


def _is_gated(layer: nn.Module) -> bool:
    try:
        source = inspect.getsource(layer.forward)
    except (OSError, TypeError):  # nothing to compare with
        return False
    return [line.strip() for line in source.splitlines() if line.strip()] in _FORWARDS
