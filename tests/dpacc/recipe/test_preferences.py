"""The reference is the base with its adapters switched off, asked once, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from dpacc import PrivacyEngine
from dpacc.errors import ConfigurationError
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.losses.preferences import REFERENCE, preference_losses
from dpacc.recipe.models import add_lora
from dpacc.recipe.preferences import held_out_preferences, with_reference
from tests.dpacc.step.engine_runs import plan_for
from tests.tiny_models import set_upper_factors, tiny_base, tiny_model, with_lora
from tests.tiny_pairs import collate_pairs, log_probabilities, pairs


def references(examples: list[dict[str, float]]) -> torch.Tensor:
    return torch.tensor([[each[name] for name in REFERENCE] for each in examples])


def test_the_reference_is_the_base_whatever_the_adapters_have_become() -> None:
    """Trained adapters and dropout change nothing, and what was in the field before is gone."""
    base, data = tiny_base("llama").eval(), pairs()
    expected = torch.stack([log_probabilities(base, pair) for pair in data]).detach()
    model = with_lora(tiny_base("llama"), "llama", lora_dropout=0.5)
    for tokens in (4096, 1):
        found = with_reference(model=model, examples=data, collate=collate_pairs, max_tokens=tokens)
        torch.testing.assert_close(references(found), expected, rtol=1e-5, atol=1e-5)
    assert all(module.training for module in model.modules())
    assert [pair["input_ids"] for pair in found] == [pair["input_ids"] for pair in data]
    with torch.no_grad():
        adapted = torch.stack([log_probabilities(model.eval(), pair) for pair in data])
    assert not torch.allclose(adapted, expected, rtol=1e-3)


def test_a_pair_has_the_reference_that_it_has_alone() -> None:
    """No other pair of the dataset has a part in it."""
    model, data = tiny_model("llama"), pairs()
    together = with_reference(model=model, examples=data, collate=collate_pairs)
    alone = with_reference(model=model, examples=data[3:4], collate=collate_pairs)
    torch.testing.assert_close(references(together)[3:4], references(alone))


def test_a_model_that_learns_without_adapters_has_no_base() -> None:
    """Its weights are not what training starts from for long; a frozen one is its own reference."""
    model, data = tiny_base("llama"), pairs()[:2]
    with pytest.raises(ConfigurationError, match=r"adapters switched off.*frozen copy"):
        with_reference(model=model, examples=data, collate=collate_pairs)
    frozen = model.eval().requires_grad_(False)
    found = references(with_reference(model=frozen, examples=data, collate=collate_pairs))
    torch.testing.assert_close(found[0], log_probabilities(frozen, data[0]).detach())


def test_it_is_asked_through_the_engines_layers_and_cached_activations(tmp_path: Path) -> None:
    """After `prepare`, with or without the frozen layers' activations at hand: the same numbers."""
    data = pairs()
    before = references(with_reference(model=_top(), examples=data, collate=collate_pairs))
    model = _top()
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan_for(len(data), steps=1), ledger=tmp_path / "ledger.jsonl"
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    model, _ = engine.prepare(model, torch.optim.SGD(adapters, lr=0.1))
    frozen = FrozenActivations(
        model=model,
        examples=data,
        collate=collate_pairs,
        accelerator=engine.accelerator,
        folder=tmp_path,
    )
    examples = with_reference(
        model=model,
        examples=frozen.examples,
        collate=frozen.collate,
        accelerator=engine.accelerator,
    )
    torch.testing.assert_close(references(examples), before, rtol=1e-5, atol=1e-5)
    for step in engine.steps(examples, frozen.collate):
        for batch in step:
            step.backward(preference_losses(model, batch))
        step.update()
    engine.close()
    frozen.close()


def _top() -> torch.nn.Module:
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=4, top_layers=1).train()
    set_upper_factors(model)
    return model


def test_held_out_pairs_are_won_lost_or_neither() -> None:
    """A model that is its own reference wins half; else the share and the mean of its margins."""
    model, data = tiny_model("llama"), pairs()
    base = with_lora(tiny_base("llama"), "llama")
    for name, parameter in base.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    own = with_reference(model=base, examples=data, collate=collate_pairs)
    start = held_out_preferences(model=base, examples=own, collate=collate_pairs, beta=0.5)
    assert start.margin == pytest.approx(0.0, abs=1e-5)
    found = held_out_preferences(model=model, examples=own, collate=collate_pairs, beta=0.5)
    with torch.no_grad():
        now = torch.stack([log_probabilities(model.eval(), pair) for pair in data])
    margins = 0.5 * ((now - references(own)) @ torch.tensor([1.0, -1.0]))
    assert found.accuracy == pytest.approx(float((margins > 0).float().mean()))
    assert found.margin == pytest.approx(float(margins.mean()), rel=1e-3)
    assert found.pairs == 6
    assert found.error == pytest.approx((found.accuracy * (1 - found.accuracy) / 6) ** 0.5)


def test_pairs_without_a_token_count_for_nothing() -> None:
    """They are left out of the share; where all are, there is nothing to measure."""
    model, data = tiny_model("llama"), pairs()[:2]
    data[0]["labels"] = [-100] * len(data[0]["labels"])
    found = held_out_preferences(model=model, examples=data, collate=collate_pairs, beta=0.1)
    assert found.pairs == 1
    with pytest.raises(ConfigurationError, match="longer ones"):
        held_out_preferences(model=model, examples=data[:1], collate=collate_pairs, beta=0.1)
