"""What a private Trainer measures, logs and uploads: as the plain one, less what is not private."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from peft import PeftModel
from transformers import EvalPrediction, Trainer
from transformers.integrations import rewrite_logs

from dpacc.errors import ConfigurationError
from tests.dpacc.recipe.test_trackers import (
    forget_trackio,
    tensorboard_scalars,
    wandb_records,
    wandb_rows,
)
from tests.dpacc.trainer.test_private_trainer import HELD_OUT, arguments, private, trainer
from tests.tiny_models import collate, tiny_base

TIMES = {"runtime", "samples_per_second", "steps_per_second"}


def test_tensorboard_gets_what_is_private_and_nothing_else(tmp_path: Path) -> None:
    """ε, learning rate and evaluations under their usual tags, each as in the log, ε as in the
    plan: no loss, no norm and no time that the training took."""
    run = trainer(
        tmp_path / "run",
        privacy=private(fixed_seed=None),
        report_to=["tensorboard"],
        eval_strategy="epoch",
    )
    run.train()
    expected: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for log in run.state.log_history:
        for tag, value in rewrite_logs({k: v for k, v in log.items() if k != "step"}).items():
            expected[tag].append((log["step"], pytest.approx(value, rel=1e-6)))
    found = tensorboard_scalars(tmp_path / "run")
    assert set(found) == {
        *("train/epsilon", "train/learning_rate", "train/epoch", "eval/loss"),
        *(f"eval/{name}" for name in TIMES),
    }
    assert found == expected
    spent = dict(found["train/epsilon"])
    assert spent == {
        step: pytest.approx(run.plan.guarantee(steps=step).epsilon, rel=1e-6)
        for step in range(1, 7)
    }


def test_wandb_gets_rows_dated_by_their_steps_and_no_load_nor_line_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its steps drew: one second each; nothing samples memory, or times printed lines."""
    import wandb

    keep_wandb_offline(tmp_path, monkeypatch)
    run = trainer(tmp_path / "run", report_to=["wandb"])
    run.train()
    wandb.finish()
    wandb.teardown()  # its service has written the file when it has ended
    rows = [row for row in wandb_rows(tmp_path) if "train/global_step" in row]
    dated = [float(row["_timestamp"]) - int(row["train/global_step"]) for row in rows]
    assert len(dated) == 7
    assert max(dated) - min(dated) < 1e-3
    assert len({row["_runtime"] for row in rows}) == 1  # the watch stands still
    kinds = {record.WhichOneof("record_type") for record in wandb_records(tmp_path)}
    assert kinds.isdisjoint({"stats", "output", "output_raw"})


def keep_wandb_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B reads the environment once a process, unless it is torn down."""
    import wandb

    wandb.teardown()
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(folder)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.mark.parametrize("mode", ["sqlite", "jsonl"])
def test_trackio_gets_rows_dated_by_their_steps_and_no_load_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Whatever its steps drew, and however trackio keeps its rows."""
    forget_trackio(monkeypatch)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", mode)
    trainer(tmp_path / "run", report_to=["trackio"]).train()
    rows, watched = (of_sqlite if mode == "sqlite" else of_fragments)(tmp_path / "trackio")
    dated = [datetime.fromisoformat(moment).timestamp() - step for step, moment in rows]
    assert len(dated) >= 7
    assert max(dated) - min(dated) < 1e-3
    assert watched == 0


def of_sqlite(folder: Path) -> tuple[list[tuple[int, str]], int]:
    """Steps of rows with their moments, the configuration's as step 0; and rows of load."""
    (file,) = folder.rglob("*.db")
    with sqlite3.connect(file) as base:
        metrics = base.execute("SELECT metrics, timestamp FROM metrics").fetchall()
        config = base.execute("SELECT 0, created_at FROM configs").fetchall()
        watched = base.execute("SELECT count(*) FROM system_metrics").fetchone()[0]
    return [(json.loads(row)["train/global_step"], moment) for row, moment in metrics] + config, (
        watched
    )


def of_fragments(folder: Path) -> tuple[list[tuple[int, str]], int]:
    lines = [line for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    rows = [(each["metrics"]["train/global_step"], each["timestamp"]) for each in records]
    return rows, sum(each["kind"] != "metric" for each in records)


def test_a_wandb_run_that_watches_the_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the user has begun, before any step is taken, with how to begin it."""
    import wandb

    keep_wandb_offline(tmp_path, monkeypatch)
    with (
        wandb.init(project="own"),
        pytest.raises(ConfigurationError, match=r"x_disable_stats=True, console='off'"),
    ):
        trainer(tmp_path / "run", report_to=["wandb"]).train()


def test_evaluation_is_the_plain_trainers(tmp_path: Path) -> None:
    """The same eval_loss as transformers' own Trainer finds for the adapters that were saved."""
    run = trainer(tmp_path / "run", eval_strategy="epoch", learning_rate=0.1)
    before = run.evaluate()["eval_loss"]
    run.train()
    run.save_model()
    plain = Trainer(
        model=PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "run"),
        args=arguments(tmp_path / "plain"),
        eval_dataset=HELD_OUT,
        data_collator=collate,
    ).evaluate()["eval_loss"]
    logged = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]
    assert logged[-1] == pytest.approx(plain, rel=1e-6)
    assert run.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-6)
    assert plain != pytest.approx(before, rel=1e-3)


def test_compute_metrics_sees_predictions_and_labels(tmp_path: Path) -> None:
    """The logits of the model for the held-out examples, beside their labels."""
    seen: list[EvalPrediction] = []
    run = trainer(
        tmp_path / "run",
        compute_metrics=lambda prediction: seen.append(prediction) or {"count": len(seen)},
        eval_strategy="epoch",
        num_train_epochs=1,
    )
    run.train()
    (prediction,) = seen
    batch = collate(HELD_OUT)
    with torch.no_grad():
        logits = run.model.eval()(**batch).logits
    torch.testing.assert_close(torch.from_numpy(prediction.predictions), logits)
    assert (prediction.label_ids == batch["labels"].numpy()).all()
    assert [log["eval_count"] for log in run.state.log_history if "eval_count" in log] == [1]


class Hub:
    """Remembers what would have been uploaded, with the statement that lay beside it."""

    def __init__(self) -> None:
        self.created: list[tuple[str, Any]] = []
        self.uploads: list[tuple[str, set[str], dict[str, Any]]] = []

    def create_repo(self, name: str, *, private: Any, **_: Any) -> Any:
        self.created.append((name, private))
        return SimpleNamespace(repo_id=name)

    def upload_folder(
        self,
        *,
        folder_path: str,
        path_in_repo: str = "",
        ignore_patterns: list[str] | None = None,
        run_as_future: bool,
        **_: Any,
    ) -> Any:
        folder = Path(folder_path)
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        kept = set(filter_repo_objects(files, ignore_patterns=ignore_patterns))
        self.uploads.append((path_in_repo, kept, json.loads((folder / "privacy.json").read_text())))
        done: Future[None] = Future()
        done.set_result(None)
        return done if run_as_future else None


def test_what_is_pushed_carries_its_privacy_and_no_private_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upload has the adapter beside the statement for its own step, and none the folder that
    a resume needs."""
    hub = Hub()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: hub)
    run = trainer(
        tmp_path / "run",
        privacy=private(fixed_seed=None),
        push_to_hub=True,
        hub_model_id="me/private",
        hub_private_repo=True,
        hub_strategy="all_checkpoints",
        save_strategy="epoch",
    )
    run.train()
    assert hub.uploads
    run.push_to_hub()
    assert hub.created == [("me/private", True)]
    assert (tmp_path / "run/_private_steps").is_dir()
    places = [place for place, _, _ in hub.uploads]
    assert places[:4] == ["", "checkpoint-3", "", "checkpoint-6"]
    assert set(places[4:]) == {""}
    for (_, files, proof), step in zip(hub.uploads, (3, 3, 6, 6, 6, 6), strict=False):
        assert {"adapter_model.safetensors", "privacy.json", "README.md"} <= files
        assert not any("private_steps" in file for file in files)
        assert proof["guarantee"]["epsilon"] == run.plan.guarantee(steps=step).epsilon
    assert "# Privacy statement" in (tmp_path / "run/README.md").read_text()


def test_a_model_card_is_written_by_the_main_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """push_to_hub calls for it on one rank: waiting there for the others would never end."""
    run = trainer(tmp_path / "run", max_steps=1)
    run.train()

    def wait(*_: Any) -> None:
        raise AssertionError("the other ranks never come")

    monkeypatch.setattr("dpacc.trainer.private_trainer.on_main_process", wait)
    run.create_model_card()
    assert "# Privacy statement" in (tmp_path / "run/README.md").read_text()
