"""What is trained: every combination as a cell, known by everything that its outcome depends on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dpacc.federated.benchmark.data_sets import DataSet
from dpacc.federated.benchmark.settings import BenchmarkConfig, method_of
from dpacc.federated.settings import AggregationName

Way: TypeAlias = Literal["federated", "local", "central"]

_OF_ALL_CELLS = (
    *("partition", "alpha", "delta", "unit", "rounds", "local_epochs", "sampling_rate"),
    *("learning_rate", "max_grad_norm", "lora_rank", "lora_alpha", "lora_target_modules"),
    *("lora_top_layers", "seed", "max_length"),
)
"""Settings that a cell's outcome depends on, beside those that differ from cell to cell."""

_OF_A_MODEL = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of the benchmark.

    Args:
        way: all clients together, each alone, or everything in one place.
        model: folder or hub id.
        data_set: name or file.
        epsilon: ε of every client.
        clients: how many; 1 in one place.
        aggregation: how adapters become one; for a baseline, the rule whose adapter it trains.
        repeat: which of several trainings of the same.
        shared: what all cells have in common, and which bytes model and data are.
    """

    way: Way
    model: str
    data_set: str
    epsilon: float
    clients: int
    aggregation: AggregationName
    repeat: int
    shared: Mapping[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of the whole of it; where anything differs, so does this."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def words(self) -> str:
        """In a line, for whoever waits."""
        how = f"{self.clients} clients" if self.way != "central" else "in one place"
        rule = f", {self.aggregation}" if self.way == "federated" else ""
        model = Path(self.model).name
        return f"{model} on {self.data_set}, ε = {self.epsilon:g}, {self.way}, {how}{rule}"


def cells_of(config: BenchmarkConfig, data_sets: Mapping[str, DataSet]) -> list[Cell]:
    """Every cell, those of one model and data set together.

    Args:
        config: the lists.
        data_sets: each that it names, by its name.
    """
    return list(_cells(config, data_sets))


def _cells(config: BenchmarkConfig, data_sets: Mapping[str, DataSet]) -> Iterator[Cell]:
    fixed = {name: getattr(config, name) for name in _OF_ALL_CELLS}
    fixed["lora_target_modules"] = list(config.lora_target_modules)
    digests = {name: data.digest for name, data in data_sets.items()}
    # Of rules with the same adapter the first stands for it where nothing is averaged.
    plain = {method_of(rule): rule for rule in reversed(config.aggregations)}.values()
    for model in config.models:
        weights = digest_of_model(model)
        for name, repeat, epsilon in itertools.product(
            config.data_sets, range(config.repeats), config.epsilons
        ):
            given: dict[str, Any] = {"model": model, "data_set": name, "epsilon": epsilon}
            given |= {"repeat": repeat, "shared": {**fixed, "data": digests[name], "base": weights}}
            if "central" in config.baselines:
                yield from (Cell(way="central", clients=1, aggregation=r, **given) for r in plain)
            for clients in config.clients:
                if "local" in config.baselines:
                    yield from (
                        Cell(way="local", clients=clients, aggregation=r, **given) for r in plain
                    )
                for rule in config.aggregations:
                    yield Cell(way="federated", clients=clients, aggregation=rule, **given)


def digest_of_model(model: str) -> str:
    """SHA-256 of a folder's weights, tokenizer and configuration; of a hub id, the id itself."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    found = hashlib.sha256()
    for path in sorted({path for pattern in _OF_A_MODEL for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return found.hexdigest()
