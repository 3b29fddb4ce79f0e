"""What a run logs: private figures by default, others only where the ledger says so."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import read_ledger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from dpacc.errors import ConfigurationError
from dpacc.trackers import NonPrivateLoss, require_trackers
from tests.recipes.test_train import Train, material, recipe, train  # noqa: F401


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
    for _ in range(300):
        found = [row for row in wandb_rows(folder) if "epsilon" in row]
        if len(found) >= rows:
            break
        time.sleep(0.1)
    return found


def wandb_rows(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.rglob("run-*.wandb")
    rows = []
    for data in records_of_log(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = record.history.item
        rows.append({each.key or ".".join(each.nested_key): each.value_json for each in items})
    return rows


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


def test_private_figures_reach_tensorboard(
    train: Train,  # noqa: F811
) -> None:
    """ε, learning rate and held-out perplexity are read back as they were; no loss is there."""
    folder = train(trackers="tensorboard") / "tiny"
    scalars = tensorboard_scalars(folder)
    assert set(scalars) == {"epsilon", "learning_rate", "held_out_perplexity"}
    assert [step for step, _ in scalars["epsilon"]] == [1, 2, 3, 4]
    assert [step for step, _ in scalars["held_out_perplexity"]] == [2, 4]
    spent = [value for _, value in scalars["epsilon"]]
    assert spent == sorted(spent)
    assert 0 < spent[-1] <= 8
    card = (folder / "README.md").read_text()
    assert f"{scalars['held_out_perplexity'][-1][1]:.1f}" in card
    assert "were logged" not in card


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without network, the values are in the run's own folder, and no path of private data is."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = train(trackers="wandb") / "tiny"
    rows = wandb_history(folder, rows=4)
    assert [int(row["_step"]) for row in rows] == [1, 2, 3, 4]
    assert 0 < float(rows[-1]["epsilon"]) <= 8
    assert not any("loss" in name for row in rows for name in row)
    (file,) = folder.rglob("run-*.wandb")
    assert b"private.jsonl" not in file.read_bytes()


def test_the_mean_loss_is_over_everybody_drawn_since() -> None:
    """Micro-batches of different sizes weigh by their examples; nobody drawn is NaN."""
    loss = NonPrivateLoss(Accelerator(cpu=True))
    loss.add(torch.tensor([1.0, 2.0, 3.0]))
    loss.add(torch.tensor([6.0]))
    assert loss.mean() == 3.0
    assert math.isnan(loss.mean())


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read: which package to install."""
    monkeypatch.setattr("dpacc.trackers._AVAILABLE", {"trackio": lambda: False})
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
