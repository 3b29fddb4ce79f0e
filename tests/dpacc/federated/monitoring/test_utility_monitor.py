"""The monitor in a federation, in a loop and in a Trainer: ε by the ledger, notes before looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import read_ledger

from dpacc import PrivacyEngine
from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring import UtilityMonitor
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.federated.federations import client, server, tiny_folder
from tests.dpacc.recipe.test_trackers import tensorboard_scalars
from tests.dpacc.step.engine_runs import LENGTHS, plan_for
from tests.dpacc.trainer.test_private_trainer import trainer
from tests.tiny_models import collate, examples, tiny_model


def test_each_round_is_a_point_with_the_epsilon_of_the_ledgers(tmp_path: Path) -> None:
    """One more before the first; what the trackers get, and the curve, are the same."""
    tiny_folder(tmp_path)
    monitor = UtilityMonitor(name="sites", trackers=("tensorboard",), folder=tmp_path / "logs")
    values = iter([0.5, 0.6, 0.65])

    @monitor.metric
    def accuracy(_: Any) -> float:
        return next(values)

    own = server(tmp_path)
    clients = [client(tmp_path, number, fixed_seed=None) for number in (1, 2)]
    history = own.train(clients=clients, measure=monitor.measure, on_round=monitor.for_server(own))
    monitor.close()
    for each in clients:
        each.close()
    assert [point.step for point in monitor.points] == [0, 1, 2]
    assert [point.metrics for point in monitor.points] == [
        {"accuracy": value} for value in (0.5, 0.6, 0.65)
    ]
    first, middle, last = monitor.points
    assert first.guarantee is None
    assert last.guarantee is not None
    assert last.epsilon == history.guarantee().worst_server.server.epsilon
    assert 0 < middle.epsilon < last.epsilon < 20.0 + 1e-9
    assert (last.guarantee.delta, last.guarantee.unit) == (1e-3, "example")
    gains = monitor.marginal_gains("accuracy")
    assert gains[0].value == pytest.approx(0.1 / middle.epsilon)
    logged = tensorboard_scalars(tmp_path / "logs")
    assert [value for _, value in logged["accuracy"]] == pytest.approx([0.5, 0.6, 0.65])
    assert [step for step, _ in logged["epsilon"]] == [0, 1, 2]
    monitor.draw(tmp_path / "curve.svg", metric="accuracy")
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")


def looped(place: Path, monitor: UtilityMonitor) -> Path:
    """A private loop of one's own, observed before it and after each step; its ledger."""
    private = examples(LENGTHS)
    engine = PrivacyEngine(Accelerator(), plan_for(len(private)), ledger=place / "ledger.jsonl")
    model = tiny_model("llama")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model, optimizer = engine.prepare(model, optimizer)
    monitor.observe(engine=engine, model=model)
    for step in engine.steps(private, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        monitor.observe(engine=engine, model=model)
    engine.close()
    return place / "ledger.jsonl"


@pytest.mark.parametrize("is_private", [False, True])
def test_a_private_metric_is_in_the_ledger_before_it_is_computed(
    tmp_path: Path, is_private: bool
) -> None:
    """And so beside every ε from then on, also of 0; a public one leaves the ledger as it was."""
    monitor, seen = UtilityMonitor(), []

    @monitor.metric(name="training loss", falling=True, is_private=is_private)
    def look(_: Any) -> float:
        path = tmp_path / "ledger.jsonl"
        noted = read_ledger(path=path).notes if path.exists() else ()
        seen.append([note.subject for note in noted])
        return 1.0

    record = read_ledger(path=looped(tmp_path, monitor))
    noted = ["non-private-metrics"] if is_private else []
    assert seen == [noted] * (1 + len(record.releases))
    assert [point.step for point in monitor.points] == [*range(1 + len(record.releases))]
    assert "training loss" in monitor.course.falling
    assert monitor.points[0].epsilon == 0
    for point in monitor.points:
        stated = point.guarantee
        assert stated is not None or not (is_private or point.step)
        assert [note.subject for note in (stated.notes if stated else ())] == noted


def test_a_federations_server_measures_nothing_private() -> None:
    """It has no ledger that could say so."""
    monitor = UtilityMonitor()
    monitor.metric(lambda _: 1.0, name="loss of the clients", is_private=True)
    with pytest.raises(ConfigurationError, match="loss of the clients look at private data"):
        monitor.measure(None)


def test_a_trainers_evaluations_are_points(tmp_path: Path) -> None:
    """With the metrics of evaluation and of one's own, without times; a private one is noted."""
    monitor = UtilityMonitor()
    monitor.metric(lambda _: {"of mine": 3.0}, name="mine", is_private=True)
    run = trainer(tmp_path, eval_strategy="steps", eval_steps=2)
    run.add_callback(monitor.for_trainer(run))
    run.train()
    assert [point.step for point in monitor.points] == [2, 4, 6]
    assert {name for point in monitor.points for name in point.metrics} == {"eval_loss", "of mine"}
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    assert "non-private-metrics" in {note.subject for note in record.notes}
    last = monitor.points[-1].guarantee
    assert last is not None
    assert last == run.engine.guarantee()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: UtilityMonitor(trackers=("tensorboard",)), "need folder="),
        (lambda: _twice(), "two metrics 'a'"),
    ],
)
def test_a_mistake_is_told_at_once(mistake: Callable[[], Any], words: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ConfigurationError, match=words):
        mistake()


def _twice() -> None:
    monitor = UtilityMonitor()
    monitor.metric(name="a")(lambda _: 1.0)
    monitor.metric(name="a")(lambda _: 2.0)
