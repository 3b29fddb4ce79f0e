"""What a run logs: private figures as they are, others only where the ledger says so."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import read_ledger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from dpacc.artifacts import run_folder
from dpacc.artifacts.progress_chart import Measurement
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.recipe.optimizers import schedule_for
from dpacc.recipe.trackers import NonPrivateLoss, require_trackers, start_trackers
from tests.dpacc.artifacts.test_written_files import unknown_files
from tests.recipes.conftest import material, recipe, train  # noqa: F401
from tests.recipes.training import Train

DECAYING: dict[str, Any] = {"learning_rate": 0.01, "average_iterates": 0}
"""Every step has a rate of its own."""


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for events in folder.rglob("events.out.tfevents.*"):
        read = EventAccumulator(str(events))
        read.Reload()
        for tag in read.Tags()["scalars"]:
            found[tag] = [(event.step, event.value) for event in read.Scalars(tag)]
    return found


def wandb_history(folder: Path, *, rows: int) -> list[dict[str, str]]:
    """What a process of its own has written down, once it has written enough."""
    for _ in range(6000):
        found = [row for row in wandb_rows(folder) if "epsilon" in row]
        if len(found) >= rows:
            break
        time.sleep(0.1)
    return found


def wandb_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for record in wandb_records(folder):
        items = record.history.item
        rows.append({each.key or ".".join(each.nested_key): each.value_json for each in items})
    return rows


def wandb_records(folder: Path) -> list[Any]:
    (file,) = folder.rglob("run-*.wandb")
    records = []
    for data in records_of_log(file.read_bytes()):
        records.append(wandb_internal_pb2.Record())
        records[-1].ParseFromString(data)
    return records


def records_of_log(log: bytes) -> Iterator[bytes]:
    """Of a log of records in blocks of 32 KiB: each part has a checksum, a length and a kind."""
    place, record, header = 7, b"", struct.Struct("<IHB")
    while place + header.size <= len(log):
        rest = 2**15 - place % 2**15
        if rest < header.size:
            place += rest
            continue
        _, length, kind = header.unpack_from(log, place)
        place += header.size
        if place + length > len(log):  # it is still being written
            return
        record += log[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def forget_trackio(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads its folder when it is first imported, which another test may have done."""
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.delenv("TRACKIO_DIR")
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Measurement]:
    """Where the last run stood, as its card and picture show it."""
    found: list[Measurement] = []
    save = run_folder.save_run

    def watched(*, measurements: Sequence[Measurement], **given: Any) -> None:
        found[:] = measurements
        save(measurements=measurements, **given)

    monkeypatch.setattr(run_folder, "save_run", watched)
    return found


def expected_figures(folder: Path, measured: Sequence[Measurement]) -> dict[str, dict[int, Any]]:
    """ε by the plan, the rate that each step was taken at, and quality where it was measured."""
    proof = json.loads((folder / "privacy.json").read_text())
    plan = PrivacyPlan.from_json(proof["plan"])
    share = schedule_for(warmup=0, steps=4, holds=False)
    qualities = {each.step: each.quality for each in measured if each.step and each.quality}
    assert set(qualities) == {2, 4}
    exact = {
        "epsilon": {i: plan.guarantee(steps=i).epsilon for i in range(1, 5)},
        "learning_rate": {i: 0.01 * share(i - 1) for i in range(1, 5)},
        "held_out_perplexity": qualities,
    }
    return {
        name: {step: pytest.approx(value, rel=1e-6) for step, value in values.items()}
        for name, values in exact.items()
    }


def by_name(rows: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    names = {name for row in rows.values() for name in row}
    return {name: {i: row[name] for i, row in rows.items() if name in row} for name in names}


def test_private_figures_reach_tensorboard(
    train: Train,  # noqa: F811
    measured: list[Measurement],
) -> None:
    """ε, learning rate and held-out perplexity are read back as they were; no loss is there."""
    folder = train(trackers="tensorboard", **DECAYING) / "tiny"
    scalars = tensorboard_scalars(folder)
    assert {name: dict(values) for name, values in scalars.items()} == expected_figures(
        folder, measured
    )
    assert "were logged" not in (folder / "README.md").read_text()


def test_losses_are_logged_only_with_a_note(
    train: Train,  # noqa: F811
) -> None:
    """Who asks for the training loss finds it, and the ledger and the card say that it was out."""
    folder = train(trackers="tensorboard", log_non_private_metrics=True) / "tiny"
    losses = tensorboard_scalars(folder)["non_private_loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    assert all(0 < value < 20 or math.isnan(value) for _, value in losses)
    (note,) = read_ledger(path=folder / "ledger.jsonl").notes
    assert note.subject == "non-private-metrics"
    assert "were logged" in (folder / "README.md").read_text()


def test_private_figures_reach_wandb_offline(
    train: Train,  # noqa: F811
    measured: list[Measurement],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without network, the same values are in the run's own folder; no path of private data is,
    nor how much memory its batches took."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = train(trackers="wandb", **DECAYING) / "tiny"
    assert unknown_files(folder) == []
    assert folder.stat().st_mode & 0o077 == 0  # the tracker's own modes are wider
    history = wandb_history(folder, rows=4)
    rows = {
        int(row["_step"]): {name: float(row[name]) for name in row if name[0] != "_"}
        for row in history
    }
    dated = [float(row["_timestamp"]) - int(row["_step"]) for row in history]
    assert max(dated) - min(dated) < 1e-3  # by steps, not by how long they took
    assert len({row["_runtime"] for row in history}) == 1  # the watch stands still
    assert by_name(rows) == expected_figures(folder, measured)
    (file,) = folder.rglob("run-*.wandb")
    assert b"private.jsonl" not in file.read_bytes()
    kinds = {record.WhichOneof("record_type") for record in wandb_records(folder)}
    assert kinds.isdisjoint({"stats", "output", "output_raw"})


def test_private_figures_reach_trackio(
    train: Train,  # noqa: F811
    measured: list[Measurement],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same values are in a data base in the run's own folder, and no load of the machine."""
    forget_trackio(monkeypatch)
    folder = train(trackers="trackio", **DECAYING) / "tiny"
    assert unknown_files(folder) == []
    (file,) = folder.rglob("dpacc.db")
    with sqlite3.connect(file) as base:
        rows = {
            int(step): json.loads(metrics)
            for step, metrics in base.execute("SELECT step, metrics FROM metrics")
        }
        moments = base.execute(
            "SELECT step, timestamp FROM metrics UNION SELECT 0, created_at FROM configs"
        ).fetchall()
        (config,) = (row[0] for row in base.execute("SELECT config FROM configs"))
        loads = base.execute("SELECT * FROM system_metrics").fetchall()
    assert by_name(rows) == expected_figures(folder, measured)
    assert "private.jsonl" not in str(config)
    assert loads == []
    dated = [datetime.fromisoformat(moment).timestamp() - step for step, moment in moments]
    assert max(dated) - min(dated) < 1e-3  # by steps, not by how long they took


def test_trackio_is_refused_where_another_machine_dates_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Space or a server stamps rows as they arrive: before it is told of the run."""
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/runs")
    with pytest.raises(ConfigurationError, match=r"TRACKIO_SPACE_ID.*trackio sync"):
        start_trackers(
            accelerator=Accelerator(cpu=True),
            names=["trackio"],
            folder=tmp_path,
            project="dpacc",
            settings={},
        )


def test_no_tracker_watches_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and load grow with the private batch, so what samples them is switched off."""
    told: dict[str, Any] = {}
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    there = dict.fromkeys(["wandb", "trackio"], lambda: True)
    monkeypatch.setattr("dpacc.recipe.trackers._AVAILABLE", there)
    monkeypatch.setattr("dpacc.recipe.trackers.filter_trackers", lambda *_: [])
    monkeypatch.setattr(Accelerator, "init_trackers", lambda *_, **given: told.update(given))
    start_trackers(
        accelerator=Accelerator(cpu=True),
        names=["wandb", "trackio"],
        folder=tmp_path,
        project="dpacc",
        settings={},
    )
    assert told["init_kwargs"]["wandb"]["settings"] == {
        "x_disable_stats": True,
        "console": "off",
    }
    trackio = told["init_kwargs"]["trackio"]
    assert trackio["auto_log_cpu"] is trackio["auto_log_gpu"] is False
    assert os.environ["TRACKIO_DIR"] == "elsewhere"


def test_the_mean_loss_is_over_everybody_drawn_since() -> None:
    """Micro-batches of different sizes weigh by their examples; nobody drawn is NaN."""
    loss = NonPrivateLoss(Accelerator(cpu=True))
    loss.add(torch.tensor([1.0, 2.0, 3.0]))
    loss.add(torch.tensor([6.0]))
    assert loss.mean() == 3.0
    assert math.isnan(loss.mean())


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read: which package to install."""
    monkeypatch.setattr("dpacc.recipe.trackers._AVAILABLE", {"trackio": lambda: False})
    with pytest.raises(ConfigurationError, match="pip install trackio"):
        require_trackers(names=["trackio"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"trackers": "paper"}, "must be among"), ({"log_non_private_metrics": True}, "--trackers")],
)
def test_settings_of_trackers_are_checked(
    train: Train,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """A tracker that nobody knows, and a loss that would go nowhere."""
    with pytest.raises(SystemExit) as caught:
        train(**changes)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
