"""Trainable embeddings and norms: their per-example gradients equal a loop's."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.recipe.models import load_adapter
from dpacc.step.admission.trainable import admit_model
from dpacc.step.strategies import Ghost, Materialize
from tests.dpacc.layers.test_adapters import (
    loop_gradients,
    materialize,
    one_pass_gradients,
    quantized,
)
from tests.dpacc.recipe.test_models_storages import clipped_sum
from tests.dpacc.step.engine_runs import noiseless
from tests.dpacc.step.test_strategies import sum_of
from tests.tiny_models import collate, examples, tiny_base, tiny_model, with_lora


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


SAVED = {
    "llama": ["lm_head", "embed_tokens"],
    "llama on NF4": ["lm_head", "embed_tokens"],
    "mistral": ["lm_head"],
    "qwen2": ["embed_tokens"],
    "gptj": ["lm_head", "ln_f", "wte"],
    "gpt2": ["wte", "ln_f", "ln_1"],
    "gpt_neox": ["lm_head", "final_layer_norm", "embed_in"],
    "opt": ["embed_tokens", "self_attn_layer_norm", "final_layer_norm"],
    "opt on NF4": ["final_layer_norm"],
    "bert": ["classifier", "LayerNorm", "word_embeddings"],
    "roberta": ["classifier", "LayerNorm", "word_embeddings"],
}
"""Heads, embeddings and norms that PEFT's modules_to_save trains whole, beside the adapters."""


def base_of(name: str) -> nn.Module:
    base = tiny_base(name.split()[0])
    return _never_packed(quantized(base)) if name.endswith("NF4") else base


def _never_packed(base: nn.Module) -> nn.Module:
    """Processors with bfloat16 evaluate 4-bit weights packed by 64 columns, and here are 32."""
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return base


def with_saved_modules(name: str) -> nn.Module:
    return with_lora(base_of(name), name.split()[0], modules_to_save=list(SAVED[name]))


@pytest.mark.parametrize("name", list(SAVED))
def test_modules_to_save_train_by_the_example_and_come_back(name: str, tmp_path: Path) -> None:
    """By either strategy the clipped sum is a loop's; the folder that is saved is what was run."""
    family = name.split()[0]
    data = examples([7, 3, 12], family=family)
    model = with_saved_modules(name)
    wrapped = {n.split(".modules_to_save")[0] for n, _ in model.named_parameters() if "_save." in n}
    assert {n.rpartition(".")[2] for n in wrapped} == set(SAVED[name])
    expected = clipped_sum(loop_gradients(model, family, data), bound=0.05)
    for kind in (Materialize, Ghost):
        model = with_saved_modules(name)
        admit_model(model)
        plan = noiseless(len(data), max_grad_norm=0.05)
        total = sum_of(model, kind, family, plan, data)
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        model.save_pretrained(tmp_path)
        again = load_adapter(model=base_of(name), folder=tmp_path).eval()
        batch = {k: v for k, v in collate(data).items() if k != "labels"}
        wanted, plain = model.eval()(**batch).logits, base_of(name).eval()(**batch).logits
        torch.testing.assert_close(again(**batch).logits, wanted)
        assert (wanted - plain).abs().max() > 0.01


def test_a_norm_without_a_rule_is_refused_in_modules_to_save() -> None:
    """Llama's has no shift and is no LayerNorm: the copy that would be trained is named."""
    model = with_lora(tiny_base("llama"), "llama", modules_to_save=["norm"])
    with pytest.raises(PrivacyError, match=r"norm\.modules_to_save.* LlamaRMSNorm; freeze it"):
        admit_model(model)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_embeddings_that_examples_share_are_refused(family: str) -> None:
    """Where nobody said how many examples look a position up, its gradient cannot be told apart."""
    model = with_lora(tiny_base(family), family, modules_to_save=["wpe", "position_embeddings"])
    with pytest.raises(
        PrivacyError, match=r"(wpe|position_embeddings)\S* reads one input for all .* freeze it"
    ):
        one_pass_gradients(model, family, examples([7, 3, 12], family=family))
