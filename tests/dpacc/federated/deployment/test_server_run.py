"""What a deployed server is told is what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.round_figures import RoundFigures
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.server.held_out import HeldOut
from dpacc.federated.updates.compression import Compression
from tests.dpacc.federated.deployment.shipped_app import nodes, run_config, shipped
from tests.dpacc.federated.federations import classifier_folder, opinions
from tests.dpacc.recipe.test_trackers import tensorboard_scalars

CLASSES: dict[str, Any] = {"task": "sequence-classification", "labels": "bad,good"}


def test_rounds_are_logged_by_public_figures_alone(folder: Path) -> None:
    """ε of the dearest client and quality on the server's own examples; no name, no count."""
    model = str(classifier_folder(folder))
    opinions(folder / "held_out_films.jsonl", count=20, seed=7)
    for number in (1, 2):
        opinions(folder / f"said-{number}.jsonl", count=12, seed=number)
    named = nodes(folder, model=model, **CLASSES)
    config = run_config(
        folder,
        **CLASSES,
        model=model,
        lora_target_modules="query,value",
        held_out=str(folder),
        held_out_max_length=16,
        trackers="tensorboard",
    )
    run = shipped(
        config,
        lambda number: named(number) | {"data-path": str(folder / f"said-{number}.jsonl")},
    )
    rows = tensorboard_scalars(folder / "server")
    assert set(rows) == {"epsilon", "held_out/films"}
    assert [step for step, _ in rows["epsilon"]] == [1, 2]
    dearest = max(each.server.epsilon for each in run.history.guarantee().prices)
    assert rows["epsilon"][-1][1] == pytest.approx(dearest)
    measured = [report.quality["films"] for report in run.history.rounds]
    assert [value for _, value in rows["held_out/films"]] == pytest.approx(measured)


def test_a_tracker_that_fails_costs_no_round(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service does not take is in the server's log, and the federation goes on."""

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("accelerate.Accelerator.log", away)
    run = shipped(run_config(folder, trackers="tensorboard"), nodes(folder))
    assert len(run.history.rounds) == 2


def test_codes_that_can_be_added_are_deployed_too(folder: Path) -> None:
    """A sum of compressed updates, as the run's and the nodes' files agree."""
    config = run_config(
        folder,
        rounds=1,
        secure_threshold=2,
        compression_bits=8,
        compression_limit=0.5,
        compression_keep=0.5,
        compression_selection="random",
    )
    told = read_config(RunSettings, config).compression
    assert told == Compression(bits=8, limit=0.5, keep=0.5, selection="random")
    run = shipped(config, nodes(folder, secure_threshold=2, secure_clients=2))
    assert sorted(run.history.rounds[0].survivors) == ["site-1", "site-2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trackers": "mlflow"}, "trackers='mlflow' must be a list of tensorboard"),
        ({"held_out": "folder"}, "task=sequence-classification"),
        ({"sketch_size": 0}, "sketch_size=0 must be at least 1"),
    ],
)
def test_a_run_that_cannot_be_meant_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """Before anybody is asked."""
    with pytest.raises(ConfigurationError, match=reason):
        read_config(RunSettings, run_config(tmp_path, **change))


def test_a_deployed_rule_asks_how_much_is_noise(folder: Path) -> None:
    """Its server cannot know; without a number nobody is asked, and nobody charged."""
    config = run_config(folder, num_clients=3, defence="median", attackers=1)
    with pytest.raises(ConfigurationError, match="dpacc federate tune"):
        shipped(config, nodes(folder))
    assert not (folder / "site-1").exists()
    known = shipped(config | {"rounds": 1, "signal-to-noise": 0.5}, nodes(folder))
    assert len(known.history.rounds[0].survivors) == 3
    told = read_config(RunSettings, config | {"despite-noise": True}).defended
    assert told == Defence(rule="median", attackers=1, despite_noise=True)


def test_without_trackers_nothing_is_begun(tmp_path: Path) -> None:
    """No folder, no accelerator."""
    RoundFigures(names=(), folder=tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


def test_a_deployed_round_that_breaks_quality_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run's own setting; where all are, the run is no success, and says why."""
    config = run_config(
        folder,
        model=str(classifier_folder(folder)),
        held_out=str(folder),
        tolerated_drop=0.05,
        lora_target_modules="query,value",
        rounds=1,
        num_clients=1,
        **CLASSES,
    )
    opinions(folder / "held_out_films.jsonl", count=6, seed=9)
    found = iter([0.9, 0.5])
    monkeypatch.setattr(HeldOut, "__call__", lambda *_: {"films": next(found)})
    mine = nodes(
        folder,
        model=str(folder / "classifier"),
        data_path=str(opinions(folder / "one.jsonl", count=12, seed=1)),
        **CLASSES,
    )
    with pytest.raises(ConfigurationError, match=r"fell from 0\.9 to 0\.5"):
        shipped(config, mine)
    kept = json.loads((folder / "server/history.json").read_text())["rounds"]
    assert kept[0]["books"]["site-1"]["steps_charged"] == 3
    with pytest.raises(ConfigurationError, match="without held_out"):
        read_config(RunSettings, run_config(folder, tolerated_drop=0.05))


def test_a_third_node_in_a_sum_of_two_stops_nobody(folder: Path) -> None:
    """It is not asked, and is told so; the two that the sum is for are in it."""
    config = run_config(folder, rounds=1, secure_threshold=2)
    run = shipped(config, nodes(folder, secure_threshold=2, secure_clients=2), connected=3)
    assert run.history.rounds[0].survivors == ("site-1", "site-2")
    assert run.history.rounds[0].failed == {"node 3": "not asked: this sum is for 2 clients"}
