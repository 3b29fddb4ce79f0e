"""Rotary embeddings that follow the longest row: refused, or held at one length's frequencies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.recipe.models import load_base
from dpacc.step.admission.rotary import hold_rotary_embeddings
from dpacc.step.admission.trainable import admit_model
from tests.dpacc.step.admission.coupled import farthest, train
from tests.tiny_models import CONFIGURATIONS, examples, save_tiny_llama, with_lora

SCALING: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [8.0] * 4,
        "original_max_position_embeddings": 16,
        "factor": 4.0,
    },
}


def scaled_base(kind: str) -> nn.Module:
    """A tiny base that was made for 16 tokens."""
    config: LlamaConfig = copy.deepcopy(CONFIGURATIONS["llama"])
    config.max_position_embeddings = 16 if kind == "dynamic" else 64
    config.rope_parameters = SCALING[kind]
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in base.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(20.0)
    return base.requires_grad_(False)


def scaled_model(kind: str) -> nn.Module:
    return with_lora(scaled_base(kind), "llama", targets=["q_proj", "v_proj"])


@pytest.mark.parametrize("kind", list(SCALING))
def test_what_follows_the_longest_row_is_refused(kind: str, tmp_path: Path) -> None:
    """A row beyond the original context moves all its neighbours; the name says why."""
    data, (extra,) = examples([12]) * 40, examples([60], seed=3)
    assert farthest(scaled_model(kind), data, extra) > 1.5
    with pytest.raises(PrivacyError, match=f"type {kind}.*hold_rotary_embeddings") as told:
        train(scaled_model(kind), data, tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("longest", [None, 60])
@pytest.mark.parametrize("kind", list(SCALING))
def test_held_they_compute_every_example_by_itself(
    kind: str, longest: int | None, tmp_path: Path
) -> None:
    """The remedy trains, whichever length it holds; no row moves another, now or later."""
    data, (extra,) = examples([12] * 20), examples([60], seed=3)
    model = scaled_model(kind)
    hold_rotary_embeddings(model, longest=longest)
    assert farthest(model, data, extra) < 1 + 1e-4
    model = scaled_model(kind)
    hold_rotary_embeddings(model, longest=longest)
    train(model, data, tmp_path)


@pytest.mark.parametrize("kind", list(SCALING))
@pytest.mark.parametrize("tokens", [12, 40])
def test_held_they_give_what_the_model_gives_at_that_length(kind: str, tokens: int) -> None:
    """Logits of a text of the length that is held are the model's own."""
    base, held = scaled_base(kind), scaled_base(kind)
    hold_rotary_embeddings(held, longest=tokens)
    ids = torch.arange(tokens)[None] + 3
    torch.testing.assert_close(held(ids).logits, base(ids).logits)


def test_a_loaded_base_is_held(tmp_path: Path) -> None:
    """Recipes load bases of this kind as their original context has them."""
    save_tiny_llama(tmp_path, words=["word"])
    scaled_base("dynamic").save_pretrained(tmp_path)
    model = with_lora(load_base(model=str(tmp_path), dtype="float32").model, "llama")
    admit_model(model)


def test_a_configuration_alone_is_enough_to_refuse() -> None:
    """Code of others may scale by the configuration, without transformers' modules."""
    plain = nn.Sequential(nn.Linear(3, 3))
    plain.config = scaled_base("longrope").config
    with pytest.raises(PrivacyError, match="the configuration has rotary embeddings"):
        admit_model(plain)


def test_a_length_must_be_positive() -> None:
    """No text has fewer than one token."""
    with pytest.raises(ConfigurationError, match="longest=0"):
        hold_rotary_embeddings(scaled_base("dynamic"), longest=0)
