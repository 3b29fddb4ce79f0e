"""One candidate trained on public records by the real engine, and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpacc.federated.ranks.tuning import AdapterShape, participant, proposals
from dpacc.federated.settings import LoraSettings
from dpacc.federated.trials import one_trial
from dpacc.federated.trials.candidates import Candidate
from dpacc.federated.trials.one_trial import Trial, run_trial
from dpacc.federated.trials.public_shares import PublicShares, shares
from dpacc.federated.updates.compression import Compression
from tests.dpacc.federated.federations import classifier_folder, opinions, texts

SIZES = {"north": 40, "south": 30}
TASK: dict[str, Any] = {
    "task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16,
}  # fmt: skip


def trial_of(model: Path, **changes: Any) -> Trial:
    one = participant(
        name="north", dataset_size=40, batch_size=10, rounds=2, local_epochs=1.0, epsilon=8.0,
        delta=1e-3,
    )  # fmt: skip
    shape = AdapterShape(layers=((32, 32, 4),), others=66)
    found = proposals(shape=shape, clients=[one], upload_bytes=1e6, ranks=(2,))
    settings: dict[str, Any] = {
        "model": str(model),
        "candidate": Candidate(proposal=found[1], batch_size=10),
        "seed": 0,
        "lora": LoraSettings(target_modules=("query", "value")),
        "scale": 2.0,
        "budgets": {"north": 8.0, "south": 3.0},
        "delta": 1e-3,
        "rounds": 2,
        "local_epochs": 1.0,
        "learning_rate": 1e-2,
        "task": TASK,
    }
    return Trial(**settings | changes)


@pytest.fixture
def public(tmp_path: Path) -> PublicShares:
    path = opinions(tmp_path / "public.jsonl", count=1500, seed=3)
    return shares(path, sizes=SIZES, held_out=20, seed=0)


def test_a_trial_keeps_each_clients_budget_and_is_run_once(
    tmp_path: Path, public: PublicShares, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ε below its own, with all that belongs to it; a second call reads what was found."""
    trial = trial_of(classifier_folder(tmp_path))
    assert trial.candidate.proposal.compression == Compression(bits=8)
    left = tmp_path / "runs" / f"{trial.named(public)}.work"
    left.mkdir(parents=True)
    (left / "half.json").write_text("of a trial that was cut off")
    outcome = run_trial(trial, shares=public, folder=tmp_path / "runs")
    assert 0 <= outcome.quality.value <= 1
    assert outcome.quality.error > 0
    for name, most in trial.budgets.items():
        said = outcome.guarantees[name]
        assert 0.9 * most < said["epsilon"] <= most
        assert said["delta"] == 1e-3
        assert {"unit", "adjacency", "method", "void_because", "stated"} <= {*said}
    assert outcome.upload_bytes > trial.candidate.proposal.upload_bytes
    (kept,) = (tmp_path / "runs").iterdir()
    assert json.loads(kept.read_text())["quality"]["value"] == outcome.quality.value
    monkeypatch.setattr(one_trial, "FederatedServer", None)
    assert run_trial(trial, shares=public, folder=tmp_path / "runs") == outcome


def test_another_setting_record_or_base_is_another_trial(
    tmp_path: Path, public: PublicShares
) -> None:
    """All that could change the result is in its name."""
    model = classifier_folder(tmp_path)
    trial = trial_of(model)
    other = Candidate(proposal=trial.candidate.proposal, batch_size=5)
    changed = [
        trial_of(model, seed=1),
        trial_of(model, budgets={"north": 8.0, "south": 2.0}),
        trial_of(model, learning_rate=2e-2),
        trial_of(model, candidate=other),
        trial_of(model, lora=replace(trial.lora, top_layers=1)),
        trial_of(model, task=TASK | {"max_length": 12}),
    ]
    names = {each.named(public) for each in [trial, *changed]}
    fewer = replace(public, held_out={"held_out": public.held_out["held_out"][:9]})
    names.add(trial.named(fewer))
    assert trial.named(public) in names
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    names.add(trial.named(public))
    assert len(names) == 9


def test_texts_are_measured_by_the_likelihood_of_a_token(folder: Path) -> None:
    """A causal model's quality is 1/perplexity: about 1/15 at random over 15 words."""
    public = shares(
        texts(folder / "public.jsonl", count=400, seed=4), sizes=SIZES, held_out=20, seed=0
    )
    trial = trial_of(
        folder / "model",
        lora=LoraSettings(target_modules=("q_proj",)),
        task={"max_length": 16},
        rounds=1,
    )
    outcome = run_trial(trial, shares=public, folder=folder / "runs")
    assert 0.002 < outcome.quality.value < 0.3
    assert outcome.quality.error > 0
