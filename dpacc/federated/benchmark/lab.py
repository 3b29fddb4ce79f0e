"""A laboratory: clients on public data, in one process, that compute the same things once.

What a client does is what it does anywhere: its own noise, ledger and budget. Only activations of
frozen layers, which a deployed client keeps to itself and forgets, are shared here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dpacc.federated.benchmark.cells import Cell
from dpacc.federated.benchmark.data_sets import DataSet, Record
from dpacc.federated.benchmark.measuring import HeldOutQuality
from dpacc.federated.benchmark.settings import method_of
from dpacc.federated.clients.client_data import ClientData, OwnFiles
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.settings import (
    DPSettings,
    LoraSettings,
    PrivacyBudget,
    Task,
    training_config,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Activations = dict[str, Tensor]


class FirstActivations(Activations):
    """Activations of public examples by their tokens: as many as there is room for, the first ones.

    What finds no room is computed by whoever needs it, as if nothing were known.

    Args:
        most_bytes: of all of them together.
    """

    def __init__(self, *, most_bytes: int = 1 << 30) -> None:
        super().__init__()
        self._room = most_bytes

    def setdefault(self, tokens: str, states: Tensor) -> Tensor:
        """Keep them if they are new and there is room."""
        if tokens not in self and states.nbytes <= self._room:
            self._room -= states.nbytes
            self[tokens] = states
        return self.get(tokens, states)


class _LabFiles(OwnFiles):
    """A client's records, with what the lab knows of them."""

    def __init__(self, config: Any, public: Activations) -> None:
        super().__init__(config)
        self._public = public

    def data(self, tokenizer: PreTrainedTokenizerBase) -> ClientData:
        return replace(super().data(tokenizer), public=self._public)


class LabClient(DPLoRAClient):
    """A client whose records are public, so that its activations may outlive it.

    Args:
        public: what is known of them in this process.
        **given: see [`DPLoRAClient`][dpacc.federated.clients.private_client.DPLoRAClient].
    """

    def __init__(self, *, public: Activations, **given: Any) -> None:
        super().__init__(**given)
        self._own_files = _LabFiles(self._config, public)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where one cell is trained.

    Args:
        cell: what is trained.
        data: its records.
        folder: of its own; emptied before and after.
        public: activations of the cell's base.
    """

    cell: Cell
    data: DataSet
    folder: Path
    public: Activations = field(default_factory=dict)

    @property
    def task(self) -> dict[str, Any]:
        """What server and clients are told."""
        return self.data.task(max_length=self.cell.shared["max_length"])

    @property
    def lora(self) -> LoraSettings:
        """The adapter that all share."""
        shared = self.cell.shared
        return LoraSettings(
            rank=shared["lora_rank"],
            alpha=shared["lora_alpha"],
            method=method_of(self.cell.aggregation),
            target_modules=tuple(shared["lora_target_modules"]),
            top_layers=shared["lora_top_layers"],
            seed=shared["seed"],
        )

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """An empty folder, whatever a killed run has left, and nothing of it afterwards."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, name: str, records: Sequence[Record]) -> LabClient:
        """One client, with these records."""
        return LabClient(
            public=self.public,
            client_id=name,
            data_path=self._written(name, records),
            model_name=self.cell.model,
            lora_config=self.lora,
            dp_config=self._privacy(records),
            task=self.task | {"cache_frozen_activations": True},
            folder=self.folder / name,
        )

    def server(self, name: str, *, clients: int) -> FederatedServer:
        """The server of so many clients."""
        shared = self.cell.shared
        return FederatedServer(
            model_name=self.cell.model,
            num_clients=clients,
            rounds=shared["rounds"],
            privacy_budget=PrivacyBudget(epsilon=self.cell.epsilon, delta=shared["delta"]),
            lora_config=self.lora,
            task=self.task,
            folder=self.folder / name,
        )

    def quality_of(self, server: FederatedServer) -> HeldOutQuality:
        """What measures the server's model."""
        held_out = training_config(
            model=self.cell.model,
            data_path=str(self._written("held-out", self.data.held_out)),
            lora=self.lora,
            dp=DPSettings(epsilon=1.0, delta=0.5, expected_batch_size=1),  # of no matter here
            task=Task(fields=self.task),
        )
        return HeldOutQuality(
            model=server.model,
            tokenizer=server.tokenizer,
            config=held_out,
            public=self.public,
            folder=self.folder,
        )

    def _privacy(self, records: Sequence[Record]) -> DPSettings:
        shared = self.cell.shared
        field = self.data.owner_field if shared["unit"] == "owner" else None
        units = len(records) if field is None else len({record[field] for record in records})
        return DPSettings(
            epsilon=self.cell.epsilon,
            delta=shared["delta"],
            expected_batch_size=max(1, round(shared["sampling_rate"] * units)),
            max_grad_norm=shared["max_grad_norm"],
            learning_rate=shared["learning_rate"],
            unit_field=field,
            most_local_epochs=shared["local_epochs"],
        )

    def _written(self, name: str, records: Sequence[Record]) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
        return path
