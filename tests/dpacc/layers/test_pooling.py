"""Sentence encoders: a text is the mean of its own tokens, and padding never counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.layout import trainable_arrays
from dpacc.layers.pooling import MeanPooling, pools_by_mean, say_mean, takes_mean
from dpacc.recipe.models import add_lora, load_base
from tests.dpacc.federated.federations import classifier_folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny BERT that says that it pools by the mean."""
    folder = classifier_folder(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def test_a_text_is_the_mean_of_its_own_tokens(encoder: Path) -> None:
    """The head reads the mean of the last layer over unmasked tokens, whatever pads them."""
    model = load_base(model=str(encoder), task="sequence-classification", labels=("a", "b")).model
    ids, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    states = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = model.classifier(states[:, :3].mean(dim=1))
    padded = model(input_ids=ids, attention_mask=mask).logits
    alone = model(input_ids=ids[:, :3]).logits
    assert isinstance(model.bert.pooler, MeanPooling)
    assert torch.allclose(padded, expected, atol=1e-6)
    assert torch.allclose(alone, expected, atol=1e-5)


def test_other_models_keep_their_pooler(encoder: Path) -> None:
    """Without the file, with another way of pooling, or for another task, nothing is replaced."""
    said = encoder / "1_Pooling/config.json"
    said.write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert not pools_by_mean(str(encoder))
    said.unlink()
    assert not pools_by_mean(str(encoder))
    model = load_base(model=str(encoder), task="sequence-classification", labels=("a", "b")).model
    assert not isinstance(model.bert.pooler, MeanPooling)


def test_pooling_has_nothing_to_train_or_to_save(encoder: Path) -> None:
    """What learns, and what is saved, is LoRA and the head alone."""
    base = load_base(model=str(encoder), task="sequence-classification", labels=("a", "b"))
    adapted = add_lora(
        model=base.model, rank=2, alpha=4, target_modules=("query",), top_layers=1, method="ffa"
    )
    names = trainable_arrays(adapted)
    assert len(names) == 3
    assert not any("pooler" in name for name in names)


def test_a_pooler_that_nobody_reads_is_not_missed(encoder: Path) -> None:
    """A folder without its weights loads where the mean replaces it, and is refused elsewhere."""
    weights = load_file(encoder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, encoder / "model.safetensors", metadata={"format": "pt"})
    assert takes_mean(load_base(model=str(encoder), task="sequence-classification").model)
    (encoder / "1_Pooling/config.json").unlink()
    with pytest.raises(ConfigurationError, match="pooler"):
        load_base(model=str(encoder), task="sequence-classification")
    (encoder / "1_Pooling").rmdir()
    say_mean(encoder)
    assert pools_by_mean(str(encoder))
