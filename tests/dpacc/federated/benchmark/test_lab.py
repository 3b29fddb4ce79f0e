"""The laboratory's clients are real ones; only activations of public records outlive them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dpacc.federated.benchmark.lab import FirstActivations, LabClient
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.settings import DPSettings, LoraSettings, PrivacyBudget
from dpacc.layers.frozen_activations import FrozenActivations
from tests.dpacc.federated.federations import classifier_folder, opinions, server

LORA = LoraSettings(rank=2, target_modules=("query",), top_layers=1)
TASK = {"task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16}


def trained(place: Path, kind: Any, **given: Any) -> dict[str, Any]:
    """The adapter after a round of one client with fixed draws."""
    client = kind(
        client_id="site",
        data_path=place / "data.jsonl",
        model_name=str(place / "classifier"),
        lora_config=LORA,
        dp_config=DPSettings(epsilon=20.0, delta=1e-3, expected_batch_size=4),
        task=TASK | {"cache_frozen_activations": True},
        folder=place / str(len([*place.iterdir()])),
        fixed_seed=3,
        **given,
    )
    own = server(
        place,
        model_name=str(place / "classifier"),
        num_clients=1,
        rounds=1,
        privacy_budget=PrivacyBudget(epsilon=20.0, delta=1e-3),
        lora_config=LORA,
        task=TASK,
        folder=place / f"server-{len([*place.iterdir()])}",
    )
    own.train(clients=[client])
    client.close()
    return {name: p.detach().clone() for name, p in own.model.named_parameters() if p.requires_grad}


def test_a_lab_client_trains_as_any_client_and_computes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same adapter to the bit; its second round runs no lower layer but to learn its shape."""
    classifier_folder(tmp_path)
    records = opinions(tmp_path / "data.jsonl", count=12, seed=0).read_text().splitlines()
    assert len(records) == 12
    public: dict[str, Tensor] = {}
    plain = trained(tmp_path, DPLoRAClient)
    first = trained(tmp_path, LabClient, public=public)
    assert len(public) == len({json.loads(line)["text"] for line in records})
    run = FrozenActivations._run
    seen: list[int] = []

    def watched(self: Any, rows: Any, accelerator: Any) -> Tensor:
        seen.extend(rows)
        return run(self, rows, accelerator)

    monkeypatch.setattr(FrozenActivations, "_run", watched)
    second = trained(tmp_path, LabClient, public=public)
    assert seen == [0, 0]
    for name, values in plain.items():
        assert (values == first[name]).all()
        assert (values == second[name]).all()


def test_what_finds_no_room_is_not_kept() -> None:
    """Nor put in the place of what is; whoever asks gets his own back."""
    known = FirstActivations(most_bytes=40)
    first, large, last = (torch.full((n,), float(n)) for n in (8, 4, 2))
    assert known.setdefault("first", first) is first
    assert known.setdefault("large", large) is large
    assert known.setdefault("last", last) is last
    assert known.setdefault("first", large) is first
    assert [*known] == ["first", "last"]
