"""One candidate on public data: a federation with real noise, measured at its end, and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from dpacc.artifacts.run_folder import write_file
from dpacc.federated.benchmark.cells import digest_of_model
from dpacc.federated.benchmark.lab import Activations, LabClient
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.held_out import read_examples
from dpacc.federated.settings import DPSettings, LoraSettings, PrivacyBudget
from dpacc.federated.trials.candidates import Candidate
from dpacc.federated.trials.public_shares import PublicShares
from dpacc.federated.trials.quality import (
    Quality,
    balanced,
    mean_of_kinds,
    read_quality,
    token_likelihood,
)
from dpacc.recipe.evaluation import losses_of_texts
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.predictions import predict_classes

if TYPE_CHECKING:
    from dpacc_accounting import FederatedGuarantee


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A federation to try, all but its data.

    Args:
        model: the base.
        candidate: rank, compression and batch.
        seed: of A, of a new head and of who holds which public record; noise is drawn in secret.
        lora: what else is agreed on; its rank, alpha and seed are taken from here.
        scale: alpha / rank, the same at every rank.
        budgets: ε of each client.
        delta: δ that all share.
        rounds: R.
        local_epochs: of each round.
        learning_rate: of every client.
        task: what is learned.
    """

    model: str
    candidate: Candidate
    seed: int
    lora: LoraSettings
    scale: float
    budgets: Mapping[str, float]
    delta: float
    rounds: int
    local_epochs: float
    learning_rate: float
    task: Mapping[str, Any]

    def named(self, shares: PublicShares) -> str:
        """One name for all that could change the result: settings, base and records."""
        said = {
            "candidate": self.candidate.to_json(),
            "lora": {name: value for name, value in asdict(self.lora).items() if name != "rank"},
            "records": [*shares.clients.items(), *shares.held_out.items()],
            "base": digest_of_model(self.model),
            **{name: getattr(self, name) for name in _TOLD},
        }
        words = json.dumps(said, sort_keys=True, default=list).encode()
        rank, batch = self.candidate.proposal.rank, self.candidate.batch_size
        digest = hashlib.sha256(words).hexdigest()[:16]
        return f"rank{rank}-batch{batch}-seed{self.seed}-{digest}"


_TOLD = (
    "model", "seed", "scale", "budgets", "delta", "rounds", "local_epochs", "learning_rate", "task",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial found.

    Args:
        quality: over all kinds of held-out records.
        kinds: of each kind.
        guarantees: each client's ε with all that belongs to it, as JSON and in words.
        upload_bytes: that a client sent in a round, on average, its message's frame counted.
        seconds: that it took.
    """

    quality: Quality
    kinds: Mapping[str, Quality]
    guarantees: Mapping[str, Any]
    upload_bytes: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        kinds = {name: each.to_json() for name, each in self.kinds.items()}
        return asdict(self) | {"quality": self.quality.to_json(), "kinds": kinds}


def run_trial(
    trial: Trial, *, shares: PublicShares, folder: Path, known: Activations | None = None
) -> Outcome:
    """The outcome that the folder holds of this trial, or else that of running it.

    A trial that was cut off begins anew.

    Args:
        trial: what to try.
        shares: each client's public records, and the held-out ones.
        folder: where outcomes are kept.
        known: activations beneath the adapters, shared by trials of one base and as many top
            layers; by default each trial computes its own.

    Raises:
        ConfigurationError: settings that contradict each other, or no client could train.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = trial.named(shares)
    kept = folder / f"{name}.json"
    if kept.exists():
        return _read(json.loads(kept.read_text("utf-8")))
    work = folder / f"{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    shares.write(work / "data")
    outcome = _run(trial, shares=shares, work=work, known={} if known is None else known)
    write_file(path=kept, content=json.dumps(outcome.to_json(), indent=1).encode())
    shutil.rmtree(work)
    return outcome


def _run(trial: Trial, *, shares: PublicShares, work: Path, known: Activations) -> Outcome:
    began, rank = time.monotonic(), trial.candidate.proposal.rank
    agreed = asdict(trial.lora) | {"rank": rank, "alpha": trial.scale * rank, "seed": trial.seed}
    lora = LoraSettings(**agreed)
    clients = [_client(trial, lora, name=name, work=work, known=known) for name in trial.budgets]
    server = FederatedServer(
        model_name=trial.model,
        num_clients=len(clients),
        rounds=trial.rounds,
        privacy_budget=PrivacyBudget(epsilon=max(trial.budgets.values()), delta=trial.delta),
        lora_config=lora,
        task=trial.task,
        folder=work / "server",
    )
    history = server.train(
        clients=clients,
        aggregation="ffa" if lora.method == "ffa" else "average",
        local_epochs=trial.local_epochs,
        compression=trial.candidate.proposal.compression,
    )
    for client in clients:
        client.close()
    history.require_moved()
    kinds = _measured(server, shares, task=trial.task, data=work / "data")
    received = sum(report.bytes_received for report in history.rounds)
    answers = sum(len(report.survivors) for report in history.rounds)
    return Outcome(
        quality=mean_of_kinds(kinds),
        kinds=kinds,
        guarantees=_guarantees(history.guarantee()),
        upload_bytes=received / answers,
        seconds=time.monotonic() - began,
    )


def _client(
    trial: Trial, lora: LoraSettings, *, name: str, work: Path, known: Activations
) -> DPLoRAClient:
    dp = DPSettings(
        epsilon=trial.budgets[name],
        delta=trial.delta,
        expected_batch_size=trial.candidate.batch_size,
        learning_rate=trial.learning_rate,
        most_local_epochs=trial.local_epochs,
    )
    # What lies beneath the adapted blocks is the same in every step.
    kept = {} if lora.top_layers is None else {"cache_frozen_activations": True}
    return LabClient(
        public=known,
        client_id=name,
        data_path=work / "data" / f"{name}.jsonl",
        model_name=trial.model,
        lora_config=lora,
        dp_config=dp,
        task={**trial.task, **kept},
        folder=work / name,
    )


def _measured(
    server: FederatedServer, shares: PublicShares, *, task: Mapping[str, Any], data: Path
) -> dict[str, Quality]:
    collate = partial(pad_examples, pad_token_id=int(server.tokenizer.pad_token_id))
    model: nn.Module = server.model
    found = {}
    for kind in shares.held_out:
        file = data / f"held_out_{kind}.jsonl"
        examples = read_examples(file, tokenizer=server.tokenizer, task=task)
        if task.get("task", "causal-lm") == "causal-lm":
            losses = losses_of_texts(model=model, examples=examples, collate=collate)
            found[kind] = token_likelihood(losses.tolist())
        else:
            found[kind] = balanced(
                *predict_classes(model=model, examples=examples, collate=collate)
            )
    return found


def _guarantees(guarantee: FederatedGuarantee) -> dict[str, Any]:
    return {
        each.name: each.server.to_json() | {"stated": str(each.server)} for each in guarantee.prices
    }


def _read(document: Mapping[str, Any]) -> Outcome:
    kinds = {name: read_quality(each) for name, each in document["kinds"].items()}
    return Outcome(**{**document, "quality": read_quality(document["quality"]), "kinds": kinds})
