"""Layers that keep less: the same numbers, fewer bytes, and nothing else touched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from dpacc.errors import ConfigurationError
from dpacc.layers import memory_saving_layers
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.memory_saving_layers import (
    _GatedProduct,
    keep_fewer_activations,
    offload_block_inputs,
)
from dpacc.step.strategies import Ghost, Materialize
from tests.dpacc.layers.test_adapters import backward
from tests.dpacc.step.engine_runs import noiseless
from tests.dpacc.step.test_strategies import empty_sum
from tests.tiny_models import CONFIGURATIONS, collate, examples, losses_of, tiny_model

GATED = ["llama", "mistral", "qwen2"]


@contextmanager
def counting_kept_bytes() -> Iterator[dict[int, int]]:
    """Bytes of every storage that autograd keeps meanwhile."""
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def losses_and_gradients(model: nn.Module, family: str) -> tuple[list[torch.Tensor], int]:
    """A batch's losses, its gradients, and the bytes kept between forward and backward."""
    batch = collate(examples(lengths=[5, 9, 2]))
    with counting_kept_bytes() as kept:
        losses = losses_of(family)(model, batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [losses, *torch.autograd.grad(losses.sum(), trained)], sum(kept.values())


@pytest.mark.parametrize("family", GATED)
def test_the_same_numbers_from_fewer_bytes(family: str) -> None:
    """Losses are bit for bit the plain layer's, gradients up to rounding; autograd keeps less."""
    model = tiny_model(family)
    leaner = copy.deepcopy(model)
    layers = CONFIGURATIONS[family].num_hidden_layers
    assert keep_fewer_activations(leaner) == layers + 2 * layers + 1
    (losses, *expected), much = losses_and_gradients(model, family)
    (again, *found), little = losses_and_gradients(leaner, family)
    assert torch.equal(losses, again)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert little < much


class Shifted(nn.Module):
    """Its output is new memory, its gradient the one that it gets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Tanh(), nn.Identity(), Shifted()])
def test_a_gates_gradients_are_autograds_twice(activation: nn.Module) -> None:
    """Also where an activation gives back what it gets, and in a second backward of one graph."""
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    direction = torch.randn(3, 5, dtype=torch.float64)
    kept = [tensor.detach().clone() for tensor in (gate, up, direction)]
    expected = torch.autograd.grad(activation(gate) * up, (gate, up), direction)
    product = _GatedProduct.apply(gate, up, activation)
    for last in (False, True):
        found = torch.autograd.grad(product, (gate, up), direction, retain_graph=not last)
        torch.testing.assert_close(found, expected)
        assert all(map(torch.equal, (gate, up, direction), kept))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_normalisation_rounds_as_the_plain_one_does(precision: torch.dtype) -> None:
    """Its output is the plain layer's to the bit in any precision, its gradient to the last one."""
    torch.manual_seed(0)
    plain = LlamaRMSNorm(24).requires_grad_(False).to(precision)
    plain.weight.copy_(torch.randn(24))
    leaner = copy.deepcopy(plain)
    assert keep_fewer_activations(leaner) == 1
    inputs = torch.randn(3, 5, 24).mul(7).to(precision).requires_grad_()
    direction = torch.randn(3, 5, 24).to(precision)
    assert torch.equal(plain(inputs), leaner(inputs))
    (expected,) = torch.autograd.grad(plain(inputs), inputs, direction)
    (found,) = torch.autograd.grad(leaner(inputs), inputs, direction)
    assert found.dtype == precision
    torch.testing.assert_close(found, expected)


def test_a_trained_normalisation_is_left_alone() -> None:
    """What the engine trains has its own rule, or is refused."""
    assert keep_fewer_activations(LlamaRMSNorm(4)) == 0


@pytest.mark.parametrize("family", sorted(set(CONFIGURATIONS) - set(GATED)))
def test_other_layers_are_left_alone(family: str) -> None:
    """A family of other layers keeps every forward that it had."""
    model = tiny_model(family)
    assert keep_fewer_activations(model) == 0
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_forward_that_differs_by_a_word_is_left_alone() -> None:
    """A layer with the same parts but another formula is not rewritten."""

    class Tempered(nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.down_proj(self.act_fn(self.gate_proj(x)) * 2 * self.up_proj(x))

    assert keep_fewer_activations(Tempered()) == 0


@pytest.mark.parametrize("kind", [Materialize, Ghost])
def test_offloaded_inputs_give_the_same_bits(
    kind: type[Materialize | Ghost], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves is each block's input and nothing else; what comes back is what was there."""
    left: list[torch.Tensor] = []

    class Elsewhere(torch.autograd.graph.saved_tensors_hooks):
        """As `save_on_cpu` on a GPU: a copy leaves, and another one comes back."""

        def __init__(self, *, pin_memory: bool) -> None:
            super().__init__(self.leave, torch.clone)

        def leave(self, kept: torch.Tensor) -> torch.Tensor:
            left.append(kept.clone())
            return left[-1]

    monkeypatch.setattr(memory_saving_layers, "save_on_cpu", Elsewhere)
    batch = collate(examples(lengths=[5, 9, 2]))

    def clipped_sum(offloads: bool) -> torch.Tensor:
        model: Any = tiny_model("llama")
        model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
        if offloads:
            offload_block_inputs(model)
        buffer = attach_gradient_buffer(model)
        total = empty_sum(buffer, noiseless(3, max_grad_norm=0.05))
        losses = losses_of("llama")(model, batch)
        kind(buffer, backward, torch.device("cpu")).add(losses, None, total)
        return total.total

    expected = clipped_sum(offloads=False)
    assert expected.norm() > 0
    assert not left
    assert torch.equal(clipped_sum(offloads=True), expected)
    config = CONFIGURATIONS["llama"]
    of_blocks = [each.shape for each in left if each.numel()]
    assert of_blocks == [(3, 8, config.hidden_size)] * config.num_hidden_layers


def test_nothing_to_offload_is_refused() -> None:
    """Where no block is computed again, none keeps its input alone."""
    with pytest.raises(ConfigurationError, match="set gradient_checkpointing"):
        offload_block_inputs(tiny_model("llama"))
