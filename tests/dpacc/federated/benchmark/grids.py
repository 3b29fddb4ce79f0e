"""A small grid, and what its cells might have found; nothing here loads a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dpacc.federated.benchmark.settings import BenchmarkConfig


def grid(folder: Path | str, **changes: Any) -> BenchmarkConfig:
    given: dict[str, Any] = {
        "models": (f"{folder}/classifier",),
        "data_sets": (f"{folder}/mine.jsonl",),
        "held_out": f"{folder}/held.jsonl",
        "labels": ("bad", "good"),
        "owner_field": "owner",
        "epsilons": (20.0,),
        "clients": (2,),
        "delta": 1e-3,
        "rounds": 1,
        "lora_rank": 2,
        "lora_target_modules": ("query", "dense"),
        "max_length": 16,
        "output_dir": f"{folder}/runs",
    }
    return BenchmarkConfig(**{**given, **changes})


def told(cell: Any) -> dict[str, Any]:
    """What a cell might have found."""
    guarantee = {"epsilon": cell.epsilon, "delta": 1e-3, "adjacency": "add-or-remove"}
    guarantee |= {"unit": "example", "method": "pld", "void_because": [], "qualified_by": []}
    found = {"metric": "balanced accuracy", "start": 0.5, "quality": 0.75, "error": 0.02}
    return {**found, "guarantee": guarantee, "bytes_received": 5, "seconds": 1.0}


def told_by_a_process(cell: Any, **_: Any) -> dict[str, Any]:
    """The same, and which process says so."""
    return told(cell) | {"process": os.getpid()}
