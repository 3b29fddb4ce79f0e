"""Every file and field that a run leaves behind, and why each may be there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dpacc import PrivacyEngine
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.run_results import write_results
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.federated.federations import client, server, tiny_folder
from tests.dpacc.federated.secure_sum.test_federation import THREE
from tests.dpacc.step.engine_runs import LENGTHS, plan_for
from tests.dpacc.trainer.test_private_trainer import trainer
from tests.recipes.conftest import material, recipe, train  # noqa: F401
from tests.recipes.training import Train, lines
from tests.tiny_models import collate, examples, tiny_model

FILES: Mapping[str, str] = {
    r"ledger\.jsonl": "public: the charges, from the plan alone",
    r"privacy\.json": "public: the guarantee and the plan",
    r"run\.json": "public or held out: what the card and the picture show",
    r"metrics\.jsonl": "public or held out: see METRICS",
    r"README\.md": "public: the card, with the statement",
    r"adapter_config\.json": "public: how the adapters are shaped",
    r"config\.yaml": "public: what the run was told; where its data is, for its owner alone",
    r"(tokenizer|tokenizer_config|special_tokens_map)\.json": "public: the base's own",
    r"adapter_model\.safetensors": "released: made of noised sums",
    r"(privacy_utility|entities)\.png": "public or held out: ε and quality by step",
    r"scores\.json": "held out: F1 by hospital and kind of entity",
    r"training_args\.bin": "public: what the Trainer was told",
    r"hparams\.yml": "public: settings that name no private data",
    r"trainer_state\.json": "see TRAINER_STATE",
    r"events\.out\.tfevents\..*": "see FIGURES",
    r"checkpoint\.json": "see CHECKPOINT; only its owner may enter the folder",
    r"tensors\.safetensors": "released: adapters, and moments of noised gradients",
    r"journal/\d{8}": "released: a noised gradient; only its owner may enter the folder",
    r"rank-\d{5}\.safetensors": "released: a rank's share of the state, where ranks cut it",
    # Weights & Biases and trackio, whose rows are FIGURES too
    r"run-\w+\.wandb": "public: rows dated by step; see test_trackers",
    r"(requirements\.txt|debug(-internal|-core)?\.log)": "public: what is installed, how it began",
    r"dpacc\.(db|db-shm|db-wal|lock)": "public: rows dated by step; see test_trackers",
    # federations
    r"last_update\.safetensors": "released: a client's noised adapter, which it has sent",
    r"optimizer\.safetensors": "released: moments of noised gradients; they stay at the client",
    r"rounds_summed\.jsonl": "who took part in which sum, for its owner alone",
    r"sums_begun\.jsonl": "how many sums came to nothing, for its owner alone",
    r"(state|history)\.json": "who took part, for its owner alone; no number of any record",
    r"rounds\.jsonl": "the same, a line a round, while it goes on",
    r"cells\.jsonl": "public: what cells of a benchmark on public data found",
    r"report\.(html|pdf)": "public: the same, in pictures and tables",
    r"rounds\.yaml": "who took part, and charges, for its owner alone",
    r"adapter-\d{4}\.safetensors": "released: the shared adapter after a round",
}

TRAINER_STATE: Mapping[str, str] = {
    **dict.fromkeys(
        ("epoch", "global_step", "max_steps", "num_train_epochs"), "public: steps of the plan"
    ),
    **dict.fromkeys(
        ("eval_steps", "logging_steps", "save_steps", "train_batch_size"), "public: as was asked"
    ),
    **dict.fromkeys(
        ("trial_name", "trial_params", "is_hyper_param_search"), "empty: no search is run"
    ),
    **dict.fromkeys(("is_local_process_zero", "is_world_process_zero"), "public: the rank"),
    **dict.fromkeys(
        ("best_global_step", "best_metric", "best_model_checkpoint"),
        "of held-out data: outside the guarantee, as the statement says",
    ),
    "log_history": "see LOGGED",
    "num_input_tokens_seen": "0: how many there were is private",
    "total_flos": "0: they follow how many tokens were drawn",
    "stateful_callbacks": "public: what callbacks were told",
}

LOGGED: Mapping[str, str] = {
    **dict.fromkeys(("step", "epoch", "learning_rate", "epsilon"), "public: of the plan"),
    "epsilon_void_because_of_fixed_seed": "public: what voids ε",
    "eval_loss": "of held-out data: outside the guarantee, as the statement says",
    **dict.fromkeys(
        ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second"),
        "of held-out data: no private example takes part",
    ),
}

FIGURES = {
    *("train/epoch", "train/learning_rate", "train/epsilon", "epsilon", "learning_rate"),
    "train/epsilon_void_because_of_fixed_seed",
    *("eval/loss", "eval/runtime", "eval/samples_per_second", "eval/steps_per_second"),
    "held_out_perplexity",
}

METRICS: Mapping[str, str] = {
    "step": "public: of the plan",
    "epsilon": "public: of the charges",
    "quality": "of held-out data: outside the guarantee, as the statement says",
    "metric": "public: of what the quality is",
}

CHECKPOINT: Mapping[str, str] = {
    "step": "public: of the plan",
    "facts": "public: plan, placement and settings of the optimizer",
    "state": "released: adapters, moments, schedule and C",
    "sha256": "a checksum of what is beside it",
    "parts": "checksums of what is beside it",
}


@pytest.fixture(params=["trainer", "engine", "recipe"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run of each surface leaves behind."""
    if request.param == "recipe":
        train: Train = request.getfixturevalue("train")
        return train(trackers="tensorboard", checkpoint_every=3) / "tiny"
    if request.param == "trainer":
        run = trainer(
            tmp_path / "run",
            save_strategy="steps",
            save_steps=4,
            report_to=["tensorboard"],
            eval_strategy="steps",
            eval_steps=4,
        )
        run.train()
        run.save_model()
        run.save_state()
        return tmp_path / "run"
    of_engine(tmp_path / "run")
    return tmp_path / "run"


def of_engine(folder: Path) -> None:
    model = tiny_model("llama")
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan_for(len(LENGTHS)),
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints",
    )
    model, _ = engine.prepare(model, optimizer)
    for step in engine.steps(examples(LENGTHS), collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        if step.index == 1:
            engine.checkpoint()
    engine.close()


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_every_file_is_known_and_the_folder_is_its_owners(folder: Path) -> None:
    """No file but those of the table is written, and nobody else may enter the run's folder."""
    assert unknown_files(folder) == []
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("ledger.jsonl", "privacy.json", "adapter_model.safetensors"):
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob(name))


def unknown_files(folder: Path) -> list[str]:
    """Those that the table does not have."""
    return [
        str(path.relative_to(folder))
        for path in files_of(folder)
        if not any(re.search(f"(^|/){name}$", path.as_posix()) for name in FILES)
    ]


def test_what_a_federation_keeps_is_known_and_its_owners(tmp_path: Path) -> None:
    """Updates, moments, and who took part, also in folders that others made and may enter."""
    tiny_folder(tmp_path)
    runs = tmp_path / "runs"
    places = {n: runs / f"site-{n}" for n in (1, 2, 3)}
    for place in (runs / "server", *places.values()):
        place.mkdir(parents=True)
    federation = server(tmp_path, num_clients=3, rounds=1, secure_sum=THREE, folder=runs / "server")
    clients = [client(tmp_path, n, folder=place) for n, place in places.items()]
    federation.train(clients=[SecureClient(client=each, secure_sum=THREE) for each in clients])
    write_results(federation, folder=runs / "server")
    assert unknown_files(runs) == []
    found = {path.name for path in files_of(runs)}
    assert {"last_update.safetensors", "optimizer.safetensors", "rounds_summed.jsonl"} < found
    assert {"state.json", "rounds.jsonl", "history.json", "rounds.yaml"} < found
    assert "adapter-0001.safetensors" in found
    assert not [name for name in found if "rng" in name]
    told = [path for path in files_of(runs) if path.parent.name != "adapter"]
    assert [path.name for path in told if path.stat().st_mode & 0o077] == []


def test_every_field_is_known(folder: Path) -> None:
    """States, logs, checkpoints and figures hold the fields of the tables and no others."""
    for path in folder.rglob("trainer_state.json"):
        state = json.loads(path.read_text())
        assert state.keys() <= TRAINER_STATE.keys()
        assert {name for log in state["log_history"] for name in log} <= LOGGED.keys()
        assert state["num_input_tokens_seen"] == state["total_flos"] == 0
    for path in folder.rglob("checkpoint.json"):
        assert json.loads(path.read_text())["description"].keys() == CHECKPOINT.keys()
    for path in folder.rglob("metrics.jsonl"):
        assert {name for row in lines(path) for name in row} == METRICS.keys()
    for path in folder.rglob("events.out.tfevents.*"):
        read = EventAccumulator(str(path))
        read.Reload()
        assert set(read.Tags()["scalars"]) <= FIGURES


def test_nothing_is_dated_by_how_long_a_step_took(folder: Path) -> None:
    """Events lie one second a step after the first, whatever was drawn."""
    for path in folder.rglob("events.out.tfevents.*"):
        read = EventAccumulator(str(path))
        read.Reload()
        for tag in read.Tags()["scalars"]:
            dated = [event.wall_time - event.step for event in read.Scalars(tag)]
            assert max(dated) - min(dated) < 1e-3


def test_no_generators_state_is_written(folder: Path) -> None:
    """Neither under a name of its own nor within what torch saves."""
    assert not list(folder.rglob("*rng*"))
    for path in folder.rglob("*.bin"):
        saved: Any = torch.load(path, weights_only=False)
        assert not any(isinstance(value, torch.Tensor) for value in vars(saved).values())
