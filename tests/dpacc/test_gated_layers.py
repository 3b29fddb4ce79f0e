"""Gated layers that keep less: the same numbers, fewer bytes, and nothing else touched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from dpacc.gated_layers import keep_fewer_activations
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
    """Losses and every gradient are bit for bit the plain layer's; autograd keeps less."""
    model = tiny_model(family)
    leaner = copy.deepcopy(model)
    assert keep_fewer_activations(leaner) == CONFIGURATIONS[family].num_hidden_layers
    expected, much = losses_and_gradients(model, family)
    found, little = losses_and_gradients(leaner, family)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert little < much


@pytest.mark.parametrize("family", sorted(set(CONFIGURATIONS) - set(GATED)))
def test_other_layers_are_left_alone(family: str) -> None:
    """A family whose feed-forward layers are not gated keeps every forward that it had."""
    model = tiny_model(family)
    assert keep_fewer_activations(model) == 0
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_forward_that_differs_by_a_word_is_left_alone() -> None:
    """A layer with the same parts but another formula is not rewritten."""

    class Tempered(nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.down_proj(self.act_fn(self.gate_proj(x)) * 2 * self.up_proj(x))

    assert keep_fewer_activations(Tempered()) == 0
