"""A base that is read once and copied is the base that would have been read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dpacc.recipe.models import add_lora, load_base
from dpacc.recipe.pretrained import bases_read_once
from tests.dpacc.federated.federations import classifier_folder


def test_copies_are_apart_and_equal_to_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, drawn head and pooling to the last bit; what one learns, no other knows; other
    settings are read anew, and so is everything outside.
    """
    folder = classifier_folder(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])

    def loaded(seed: int = 3) -> torch.nn.Module:
        settings = {"task": "sequence-classification", "labels": ("a", "b"), "seed": seed}
        return load_base(model=str(folder), **settings).model  # type: ignore[arg-type]

    def said(model: torch.nn.Module) -> list[float]:
        with torch.no_grad():
            return model.eval()(input_ids=ids, attention_mask=mask).logits.flatten().tolist()

    expected = said(loaded())
    reads = []
    read = AutoModelForSequenceClassification.from_pretrained
    monkeypatch.setattr(
        AutoModelForSequenceClassification,
        "from_pretrained",
        lambda *given, **named: reads.append(given) or read(*given, **named),
    )
    with bases_read_once():
        first = loaded()
        assert said(first) == expected
        adapted = add_lora(model=first, method="ffa", rank=2, alpha=4.0, target_modules=("query",))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in adapted.parameters():
                parameter += 1.0
        assert said(loaded()) == expected
        assert len(reads) == 1
        loaded(seed=4)
        assert len(reads) == 2
    loaded()
    assert len(reads) == 3
