"""Layers of Llama and its kin that keep less for the backward, and pass over memory less often.

`act(gate) · up` as two operations keeps gate, act(gate) and up, each as wide as the layer, which
is the widest thing in a transformer block. As one operation it keeps gate and up, and makes
act(gate) again in the backward: one pass over memory for a sixth of what a block keeps. A root mean
square normalisation as five operations runs a backward for each; as one it keeps its input and one
number a token, and has a short derivative. Where activations are made again, what is left are the
blocks' inputs, which can wait in the processor's memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from dpacc.errors import ConfigurationError

Activation = Callable[[Tensor], Tensor]


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
        (of_gate,) = torch.autograd.grad(activated, leaf, gradient)
        activated = activated.detach()
        if _share_memory(activated, gate) or _share_memory(of_gate, gradient):
            return of_gate * up, gradient * activated, None
        return of_gate.mul_(up), activated.mul_(gradient), None


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """As an activation that does nothing gives back what it gets."""
    place = one.untyped_storage().data_ptr()
    return place == other.untyped_storage().data_ptr() != 0  # which is that of no numbers


class _Normalised(torch.autograd.Function):
    """y = w·x/ρ with ρ² = mean(x²) + ε, so ∂ℓ/∂x = (h − x·mean(h·x)/ρ²)/ρ where h = w·∂ℓ/∂y."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, stability: float) -> Tensor:
        wide = inputs.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(stability).rsqrt_()
        ctx.save_for_backward(inputs, weight, inverse)
        return weight * (wide * inverse).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = output_gradients
        inputs, weight, inverse = ctx.saved_tensors
        wide = inputs.float()
        weighted = (gradient * weight).to(inputs.dtype).float()
        along = (weighted * wide).mean(-1, keepdim=True) * inverse.square()
        return weighted.addcmul_(wide, along, value=-1).mul_(inverse).to(inputs.dtype), None, None


def _leaner_gate(self: Any, x: Tensor) -> Any:
    if torch.compiler.is_compiling():  # which decides by itself what is kept
        return type(self).forward(self, x)
    product = _GatedProduct.apply(  # type: ignore[no-untyped-call]
        self.gate_proj(x), self.up_proj(x), self.act_fn
    )
    return self.down_proj(product)


def _leaner_norm(self: Any, hidden_states: Tensor) -> Any:
    if torch.compiler.is_compiling():
        return type(self).forward(self, hidden_states)
    return _Normalised.apply(  # type: ignore[no-untyped-call]
        hidden_states, self.weight, self.variance_epsilon
    )


_GATE = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
_LEANER: dict[str, Callable[..., Any]] = {
    f"def forward(self, x):\ndown_proj = {_GATE}\nreturn down_proj": _leaner_gate,
    f"def forward(self, x):\nreturn {_GATE}": _leaner_gate,
    "def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:\n"
    "input_dtype = hidden_states.dtype\n"
    "hidden_states = hidden_states.to(torch.float32)\n"
    "variance = hidden_states.pow(2).mean(-1, keepdim=True)\n"
    "hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)\n"
    "return self.weight * hidden_states.to(input_dtype)": _leaner_norm,
}
"""The forwards that are known, and what takes their place."""


def keep_fewer_activations(model: nn.Module) -> int:
    """Let the gated layers and frozen normalisations of `model` keep less; how many do.

    Only a class whose forward is, word for word, the one of Llama and its kin is touched; all
    others stay as they are. Outputs are bit for bit the same, gradients up to rounding.

    >>> keep_fewer_activations(nn.Sequential(nn.Linear(2, 2)))
    0
    """
    changed = 0
    for module in model.modules():
        forward = module.forward
        leaner = _LEANER.get(_source(getattr(forward, "__func__", forward)))
        trained = any(p.requires_grad for p in module.parameters(recurse=False))
        if leaner is not None and not trained:
            module.forward = MethodType(leaner, module)
            changed += 1
    return changed


def offload_block_inputs(model: nn.Module) -> None:
    """Let what blocks are computed again from wait in the processor's memory.

    Numbers are copied there and back, and stay what they are.

    Args:
        model: with activation checkpointing, which is not reentrant.

    Raises:
        ConfigurationError: none of its blocks is computed again.
    """
    name = "_gradient_checkpointing_func"  # transformers'
    checkpointed = [vars(module) for module in model.modules() if name in vars(module)]
    for attributes in checkpointed:
        attributes[name] = partial(_offloading, attributes[name])
    if not checkpointed:
        raise ConfigurationError(
            "offload_activations moves what activations are computed again from, and none of "
            f"{type(model).__name__}'s are: set gradient_checkpointing, or leave it out"
        )


def _offloading(checkpoint: Callable[..., Any], block: Any, *inputs: Any) -> Any:
    """A block that is computed again; within, its own hooks leave these the inputs alone."""
    if any(isinstance(each, Tensor) and each.is_meta for each in inputs):
        hooks = saved_tensors_hooks(_without_numbers, torch.clone)
    else:
        hooks = save_on_cpu(pin_memory=torch.cuda.is_available())
    with hooks:
        return checkpoint(block, *inputs)


def _without_numbers(kept: Tensor) -> Tensor:
    """What a plan keeps on the device of what is kept elsewhere."""
    return kept.new_empty(()).expand(kept.shape)


@cache
def _source(forward: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(forward)
    except (OSError, TypeError):  # nothing to compare with
        return ""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line)
