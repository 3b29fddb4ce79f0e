"""Tiny federations: a random Llama, invented texts, a few clients."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from transformers import AutoModelForSequenceClassification

from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.clients.trusting_client import TrustingClient
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.settings import DPSettings, LoraSettings, PrivacyBudget
from tests.tiny_models import CONFIGURATIONS, save_tiny_llama

WORDS = ["the", "film", "was", "good", "bad", "long", "short", "fine", "dull", "loud", "warm"]
DELTA = 1e-3
LORA = LoraSettings(rank=2, target_modules=("q_proj", "v_proj"))
BUDGET = PrivacyBudget(epsilon=50.0, delta=DELTA)


def tiny_folder(folder: Path) -> Path:
    """A folder with the model."""
    model = folder / "model"
    save_tiny_llama(model, words=WORDS)
    return model


def texts(path: Path, *, count: int = 12, seed: int = 0) -> Path:
    """Invented texts, as a file."""
    draw = random.Random(seed)
    lines = [
        json.dumps({"text": " ".join(draw.choices(WORDS, k=draw.randint(3, 8)))})
        for _ in range(count)
    ]
    path.write_text("\n".join(lines))
    return path


def client(place: Path, number: int, **changes: Any) -> DPLoRAClient:
    """One client with data, budget and seed of its own."""
    dp: dict[str, Any] = {"epsilon": 20.0, "delta": DELTA, "expected_batch_size": 4}
    dp["most_local_epochs"] = 9.0
    settings: dict[str, Any] = {
        "client_id": f"site-{number}",
        "data_path": texts(place / f"data-{number}.jsonl", seed=number),
        "model_name": str(place / "model"),
        "lora_config": LORA,
        "dp_config": DPSettings(**dp | changes.pop("dp", {})),
        "task": {"max_length": 16},
        "folder": place / f"site-{number}",
        "fixed_seed": number,
    }
    return DPLoRAClient(**settings | changes)


def node_settings(place: Path, name: str, *, seed: int = 0) -> dict[str, Any]:
    """What the operator of a node writes, for texts of its own."""
    return {
        "client-id": name,
        "data-path": str(texts(place / f"{name}.jsonl", seed=seed)),
        "folder": str(place / name),
        "model": str(place / "model"),
        "task": "causal-lm",
        "max-length": 16,
        "most-rounds": 2,
        "epsilon": 20.0,
        "delta": DELTA,
        "expected-batch-size": 4,
    }


def trusting(place: Path, number: int, **changes: Any) -> TrustingClient:
    """One client that leaves the noise to its server."""
    settings: dict[str, Any] = {
        "client_id": f"site-{number}",
        "data_path": texts(place / f"data-{number}.jsonl", seed=number),
        "model_name": str(place / "model"),
        "lora_config": LORA,
        "batch_size": 4,
        "task": {"max_length": 16},
        "folder": place / f"site-{number}",
    }
    return TrustingClient(**settings | changes)


def server(place: Path, **changes: Any) -> FederatedServer:
    """A server of the same model."""
    settings: dict[str, Any] = {
        "model_name": str(place / "model"),
        "num_clients": 2,
        "rounds": 2,
        "privacy_budget": BUDGET,
        "lora_config": LORA,
        "folder": place / "server",
    }
    return FederatedServer(**settings | changes)


def deployed_in_process(
    app: ServerApp, clients: Sequence[Any], federation: FederatedServer
) -> History:
    """A server's app among clients of whose settings it knows nothing beforehand."""
    grid = LocalGrid({node: each.app for node, each in enumerate(clients, start=1)})
    app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    return federation.history


def die_in_the_second_round(
    dying: FederatedServer, clients: Sequence[Any], **settings: Any
) -> None:
    """Train until the second round is measured, which is before it is kept, and go no further."""

    def die(model: Any) -> dict[str, float]:
        if len(dying.history.rounds) == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        dying.train(clients=clients, measure=die, **settings)


CLASSES = {"bad": ["bad", "dull"], "good": ["good", "fine"]}


def classifier_folder(folder: Path) -> Path:
    """A tiny random BERT with two classes and its tokenizer."""
    model = folder / "classifier"
    save_tiny_llama(model, words=WORDS)
    torch.manual_seed(0)
    configuration = copy.deepcopy(CONFIGURATIONS["bert"])
    configuration.num_labels = 2
    AutoModelForSequenceClassification.from_config(configuration).save_pretrained(model)
    return model


def opinions(path: Path, *, count: int, seed: int, flipped: bool = False) -> Path:
    """Texts whose words decide their class."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        label = draw.choice(list(CLASSES))
        words = [*draw.choices(CLASSES[label], k=3), *draw.choices(["the", "film", "was"], k=2)]
        said = {"good": "bad", "bad": "good"}[label] if flipped else label
        lines.append(json.dumps({"text": " ".join(words), "label": said}))
    path.write_text("\n".join(lines))
    return path
