"""Trainable embeddings and norms: their per-example gradients equal a loop's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dpacc.admission import admit_model
from tests.dpacc.test_adapters import loop_gradients, materialize, one_pass_gradients
from tests.tiny_models import examples, tiny_base, tiny_model


def by_loop(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    rows = []
    for x in inputs:
        model.zero_grad()
        model(x.unsqueeze(0)).square().sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


IDS = torch.tensor([[1, 2, 2, 0], [3, 3, 3, 3], [0, 0, 0, 0]])
LAYERS = {
    "embedding": (lambda: nn.Embedding(5, 3), IDS),
    "embedding with padding": (lambda: nn.Embedding(5, 3, padding_idx=0), IDS),
    "norm of tokens": (lambda: nn.LayerNorm(6), torch.randn(3, 4, 6)),
    "norm of vectors": (lambda: nn.LayerNorm(6), torch.randn(3, 6)),
    "norm without bias": (lambda: nn.LayerNorm(6, bias=False), torch.randn(3, 4, 6)),
    "norm over two dimensions": (lambda: nn.LayerNorm((4, 6)), torch.randn(3, 4, 6)),
    "linear without bias": (lambda: nn.Linear(6, 2, bias=False), torch.randn(3, 4, 6)),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_a_head_gives_each_example_the_gradient_it_has_alone(name: str) -> None:
    """One backward over three examples equals three backwards."""
    build, inputs = LAYERS[name]
    torch.manual_seed(0)
    model = nn.Sequential(build())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    expected = by_loop(copy.deepcopy(model), inputs)
    admit_model(model)
    gradients = materialize(model)
    losses = model(inputs).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(gradients.rows(losses), expected, rtol=1e-4, atol=1e-5)
    assert expected.norm() > 0


def test_gradients_flow_through_a_norm() -> None:
    """A layer below a trained norm gets the same gradient as with torch's own norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    inputs = torch.randn(4, 5, 6)
    expected = by_loop(copy.deepcopy(model), inputs)
    losses_of = materialize(model)
    rows = losses_of.rows(model(inputs).square().flatten(1).sum(dim=1))
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)


def test_a_trained_classifier_and_embedding_ride_along_with_lora() -> None:
    """BERT with LoRA, its linear head and its word embeddings equals the loop."""
    model = tiny_model("bert")
    model.get_input_embeddings().weight.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if "embeddings.LayerNorm" in name:
            parameter.requires_grad_(True)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("classifier" in name for name in names)
    assert any("word_embeddings" in name for name in names)
    data = examples([7, 3, 12], family="bert")
    expected = loop_gradients(model, "bert", data)
    actual = one_pass_gradients(model, "bert", data)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_a_tied_embedding_and_head_add_up() -> None:
    """GPT-2's table, looked up at the bottom and multiplied at the top, has one summed gradient."""
    model = tiny_base("gpt2").requires_grad_(False)
    assert model.lm_head.weight is model.transformer.wte.weight
    model.lm_head.weight.requires_grad_(True)
    data = examples([7, 3, 12], family="gpt2")
    expected = loop_gradients(model, "gpt2", data)
    actual = one_pass_gradients(model, "gpt2", data)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
