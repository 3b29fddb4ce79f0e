"""Every way in which owners come in counts them alike, and refuses the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dpacc import PrivacyEngine
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_units
from dpacc.errors import ConfigurationError
from dpacc.federated.clients.client_data import read_client_data
from dpacc.federated.settings import DPSettings, Task, training_config
from dpacc.recipe.models import load_tokenizer
from tests.dpacc.federated.federations import LORA, tiny_folder
from tests.tiny_models import collate, examples, tiny_model

OWNERS = torch.tensor([3, 8, 3, 3, 5, 8])


def written(path: Path, owners: list[Any]) -> Path:
    records = [{"text": f"a b {i}", "label": "sad", "who": who} for i, who in enumerate(owners)]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def configured(path: Path) -> TrainingConfig:
    return TrainingConfig(
        model="none",
        train_data=str(path),
        epsilon=8.0,
        expected_batch_size=2,
        steps=1,
        unit_field="who",
    )


def test_a_plain_loop_counts_the_patients_of_a_tensor(tmp_path: Path) -> None:
    """Three patients behind six examples, whose tensor would count as six."""
    model = tiny_model("llama")
    data = examples([4, 5, 6, 4, 5, 6])
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    engine.make_private(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        data_loader=DataLoader(data, batch_size=2, shuffle=True, collate_fn=collate),
        noise_multiplier=1.0,
        target_delta=1e-3,
        max_grad_norm=1.0,
        epochs=1,
        units=OWNERS,  # type: ignore[arg-type]
        unit="patient",
    )
    assert engine.plan.dataset_size == 3


def test_a_recipe_counts_owners_and_refuses_two_spellings(tmp_path: Path) -> None:
    """The field of a file: numbers as they are; 7 beside "7", or "Ann" beside "ann ", never."""
    assert load_units(config=configured(written(tmp_path / "a.jsonl", [7, 9, 7]))) == [7, 9, 7]
    for owners in ([7, "7"], ["Ann", "ann "], ["Ann", ""], [7, None], [7, -1], [7.5, 7.5]):
        with pytest.raises(ConfigurationError, match="who") as refused:
            load_units(config=configured(written(tmp_path / "b.jsonl", owners)))
        assert "Ann" not in str(refused.value)


def test_a_client_of_a_federation_refuses_the_same(tmp_path: Path) -> None:
    """When its data are read, before it has a ledger: two spellings would be two units."""
    dp = DPSettings(epsilon=1.0, delta=1e-3, expected_batch_size=1, unit_field="who")
    config = training_config(
        model=str(tiny_folder(tmp_path)),
        data_path=str(written(tmp_path / "data.jsonl", ["Ann", "ann", "Bob"])),
        lora=LORA,
        dp=dp,
        task=Task(fields={"max_length": 16}),
    )
    with pytest.raises(ConfigurationError, match="differ only in case"):
        read_client_data(config=config, tokenizer=load_tokenizer(model=config.model))
