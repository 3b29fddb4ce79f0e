"""Hospitals that learn together, alone, and as if all their notes lay in one place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.budgets import largest_budget
from dpacc.federated.clients.client_data import ClientData, OwnFiles
from dpacc.federated.clients.local_adapter import LocalAdapter
from dpacc.federated.clients.local_training import local_accelerator
from dpacc.federated.clients.non_private_training import PlainTraining
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.healthcare.held_out_notes import HeldOutNotes, Scores
from dpacc.federated.healthcare.notes import LABELS
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.history import History, RoundReport
from dpacc.federated.server.run_results import write_results
from dpacc.federated.settings import DPSettings, LoraSettings, Task, training_config
from dpacc.layers.frozen_activations import FrozenActivations

PATIENT = "patient"
"""The field that says whose a note is: the privacy unit."""

_POOLED = "everything"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one way to train came to.

    Args:
        scores: by hospital, by kind of entity.
        history: its rounds and books.
    """

    scores: Scores
    history: History


class HealthcareFederation:
    """Hospitals that teach one model to find entities in notes which none of them shows.

    Each is (ε, δ)-DP for adding or removing one of its patients with all notes, by Poisson sampling
    of patients and noise of its own, under its own budget and on its own ledger.

    Args:
        hospitals: each one's privacy and training, by name; unless it says otherwise its privacy
            unit is a patient.
        data: a folder with `<hospital>.jsonl` and `held_out_<hospital>.jsonl`, a note a line:
            `{"words": [...], "label": [...], "patient": "..."}`.
        model_name: any encoder or causal LM, a folder or its id on the hub.
        folder: where ledgers, updates and adapters are kept.
        rounds: how often adapters become one.
        local_epochs: a hospital's expected passes over its patients in one round.
        lora_config: the adapter that all share; it must leave a layer beneath it alone.
        labels: every tag that a word may have.
        max_length: tokens kept of a note.
        keep_activations: whether hospitals compute once what the layers beneath the adapter make of
            their notes; not for models that drop out.

    Raises:
        ConfigurationError: settings that contradict each other, files that are not there, or a
            patient who is trained and measured on.
    """

    def __init__(
        self,
        *,
        hospitals: Mapping[str, DPSettings],
        data: Path | str,
        model_name: str,
        folder: Path | str,
        rounds: int = 8,
        local_epochs: float = 0.5,
        lora_config: LoraSettings | None = None,
        labels: tuple[str, ...] = LABELS,
        max_length: int = 128,
        keep_activations: bool = True,
    ) -> None:
        self._hospitals = {
            name: replace(own, unit_field=own.unit_field or PATIENT, most_local_epochs=local_epochs)
            for name, own in hospitals.items()
        }
        self._data, self._folder, self._model_name = Path(data), Path(folder), model_name
        self._rounds, self._local_epochs = rounds, local_epochs
        self._lora = lora_config or LoraSettings(rank=4, alpha=0.5, top_layers=1)
        self._task: dict[str, Any] = {
            "task": "token-classification",
            "labels": labels,
            "words_field": "words",
            "label_field": "label",
            "max_length": max_length,
        }
        self._keep_activations = keep_activations
        self._held_out = HeldOutNotes(
            folder=data,
            hospitals=[*hospitals],
            model_name=model_name,
            lora=self._lora,
            task=self._task,
        )
        for unit in {own.unit_field or PATIENT for own in self._hospitals.values()}:
            self._held_out.require_apart(folder=self._data, unit_field=unit)

    def train(
        self,
        *,
        defence: Defence | None = None,
        secure_sum: SecureSum | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
    ) -> Outcome:
        """All hospitals together, measured after each round; adapter and rounds are kept.

        Args:
            defence: against hostile hospitals.
            secure_sum: hides each hospital's update from the server.
            on_round: is told of each round.

        Raises:
            ConfigurationError: settings that contradict each other, or no update was used.
        """
        return self._train(
            self._hospitals,
            data=self._data,
            folder=self._folder,
            defence=defence,
            secure_sum=secure_sum,
            on_round=on_round,
        )

    def train_alone(self, hospital: str) -> Outcome:
        """One hospital by itself, for the same ε in as many steps.

        Args:
            hospital: which.
        """
        own = {hospital: self._hospitals[hospital]}
        return self._train(own, data=self._data, folder=self._folder / "alone" / hospital)

    def train_pooled(self, *, epsilon: float | None = None) -> Outcome:
        """All notes in one place, in batches as large as all hospitals' together.

        Args:
            epsilon: of everybody's; by default the strictest hospital's, which all then have.
        """
        owners = self._hospitals.values()
        everything = replace(
            next(iter(owners)),
            epsilon=min(own.epsilon for own in owners) if epsilon is None else epsilon,
            expected_batch_size=sum(own.expected_batch_size for own in owners),
        )
        with tempfile.TemporaryDirectory() as data:
            self._pool(Path(data))
            folder = self._folder / "pooled"
            return self._train({_POOLED: everything}, data=Path(data), folder=folder)

    def train_without_privacy(
        self, *, epochs: float, batch_size: int, learning_rate: float
    ) -> Scores:
        """All notes in one place, and no noise: what the noise and the walls cost.

        Its scores tell exactly about whoever the notes are of, and no ledger says so: for notes of
        nobody, as `write_hospitals` writes them, alone.

        Args:
            epochs: passes over all notes.
            batch_size: notes in a batch.
            learning_rate: AdamW's, constant.
        """
        with tempfile.TemporaryDirectory() as data:
            self._pool(Path(data))
            config = training_config(
                model=self._model_name,
                data_path=str(Path(data) / f"{_POOLED}.jsonl"),
                lora=self._lora,
                # Nothing is private here; a run's words ask for a budget.
                dp=DPSettings(
                    epsilon=1.0,
                    delta=0.5,
                    expected_batch_size=batch_size,
                    learning_rate=learning_rate,
                ),
                task=Task(fields=self._task),
            )
            files = OwnFiles(config)
            adapter = LocalAdapter(
                config=config, base=files.take_base(), rank=None, compression=None
            )
            notes = files.data(adapter.base.tokenizer)
            frozen = FrozenActivations(
                model=adapter.model.eval(),
                examples=notes.examples,
                collate=notes.collate,
                accelerator=local_accelerator(),
                folder=Path(data),
            )
            training = PlainTraining(
                config=config,
                adapter=adapter,
                data=ClientData(examples=frozen.examples, units=None, collate=frozen.collate),
                local_epochs=epochs,
            )
            training.run_round(adapter.shared)
            scores = self._held_out.scores(adapter.model)
            frozen.close()
        return scores

    def measured(self, model: nn.Module) -> Scores:
        """What a model with an adapter of this federation finds in held-out notes."""
        return self._held_out.scores(model)

    def close(self) -> None:
        """Give up what was kept to measure with."""
        self._held_out.close()

    def _train(
        self,
        hospitals: Mapping[str, DPSettings],
        *,
        data: Path,
        folder: Path,
        defence: Defence | None = None,
        secure_sum: SecureSum | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
    ) -> Outcome:
        clients = [
            DPLoRAClient(
                client_id=name,
                data_path=data / f"{name}.jsonl",
                model_name=self._model_name,
                lora_config=self._lora,
                dp_config=own,
                task=self._task | {"cache_frozen_activations": self._keep_activations},
                folder=folder / name,
            )
            for name, own in hospitals.items()
        ]
        server = FederatedServer(
            model_name=self._model_name,
            num_clients=len(hospitals),
            rounds=self._rounds,
            privacy_budget=largest_budget(hospitals),
            lora_config=self._lora,
            task=self._task,
            secure_sum=secure_sum,
            folder=folder / "server",
        )
        history = server.train(
            clients=[
                client if secure_sum is None else SecureClient(client=client, secure_sum=secure_sum)
                for client in clients
            ],
            aggregation="ffa",
            local_epochs=self._local_epochs,
            defence=defence,
            measure=self._held_out if on_round else None,
            on_round=on_round,
        )
        for client in clients:
            client.close()
        write_results(server, folder=folder)
        return Outcome(scores=self._held_out.scores(server.model), history=history)

    def _pool(self, folder: Path) -> None:
        """Everybody's notes in one file."""
        notes = [(self._data / f"{name}.jsonl").read_text("utf-8") for name in self._hospitals]
        (folder / f"{_POOLED}.jsonl").write_text("".join(notes), "utf-8")
