"""Tiny federations: a random Llama, invented texts, a few clients."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from dpacc.federated.client import DPLoRAClient
from dpacc.federated.server import FederatedServer
from dpacc.federated.settings import DPSettings, LoraSettings, PrivacyBudget
from tests.tiny_models import save_tiny_llama

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
    settings: dict[str, Any] = {
        "client_id": f"site-{number}",
        "data_path": texts(place / f"data-{number}.jsonl", seed=number),
        "lora_config": LORA,
        "dp_config": DPSettings(**dp | changes.pop("dp", {})),
        "task": {"max_length": 16},
        "folder": place / f"site-{number}",
        "fixed_seed": number,
    }
    return DPLoRAClient(**settings | changes)


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
