"""A federation in one process: what is learned, what is spent, and what is written down first."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from dpacc_accounting import read_ledger

from dpacc.cli.main import dpacc
from dpacc.errors import ConfigurationError
from dpacc.federated.requests import COULD_NOT, SPENT
from dpacc.federated.server.history import RoundReport
from dpacc.federated.settings import LoraSettings, PrivacyBudget
from dpacc.federated.updates.layout import trainable_arrays
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.ranks.collectives import join_ranks
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_training_examples, pad_examples
from dpacc.recipe.models import add_lora, load_base
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.federated.federations import (
    DELTA,
    LORA,
    classifier_folder,
    client,
    deployed_in_process,
    opinions,
    server,
)


def trained_centrally(folder: Path, *, steps: int) -> dict[str, np.ndarray]:
    """The same data, plan, seed and optimizer, by the engine alone."""
    config = TrainingConfig(
        model=str(folder / "model"),
        train_data=str(folder / "data-1.jsonl"),
        epsilon=20.0,
        expected_batch_size=4,
        steps=steps,
        max_length=16,
        warmup_steps=0,
    )
    base = load_base(model=config.model)
    examples = load_training_examples(config=config, tokenizer=base.tokenizer)
    plan = PrivacyPlan.calibrate(
        dataset_size=len(examples),
        expected_batch_size=4,
        steps=steps,
        target_epsilon=20.0,
        target_delta=DELTA,
        max_grad_norm=1.0,
    )
    model = add_lora(
        model=base.model, method="ffa", rank=2, alpha=16.0, target_modules=LORA.target_modules
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=1e-3, weight_decay=0.0)
    engine = PrivacyEngine(join_ranks(), plan, ledger=folder / "central.jsonl", fixed_seed=1)
    engine.prepare(model, optimizer)
    model.train()
    collate = partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)
    for step in engine.steps(examples, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    return trainable_arrays(model)


def test_one_client_with_everything_is_central_training(folder: Path) -> None:
    """Two rounds of one client leave, bit for bit, the adapter of one central run."""
    federation = server(folder, num_clients=1)
    only = client(folder, 1)
    federation.train(clients=[only], local_epochs=1)
    central = trained_centrally(folder, steps=only.training.plan.steps)
    federated = trainable_arrays(federation.model)
    assert only.training.plan.steps == 6
    assert any(np.abs(values).max() > 0 for values in central.values())
    for name, values in central.items():
        assert np.array_equal(values, federated[name])


def test_the_next_adapter_is_the_mean_of_the_clients(folder: Path) -> None:
    """After a round the server holds the float64 mean of what the clients sent."""
    federation = server(folder, rounds=1)
    clients = [client(folder, 1), client(folder, 2)]
    federation.train(clients=clients)
    sent = [trainable_arrays(each.training._model) for each in clients]
    for name, values in trainable_arrays(federation.model).items():
        mean = (sent[0][name].astype(np.float64) + sent[1][name]) / 2
        assert np.array_equal(values, mean.astype(np.float32))
        assert not np.array_equal(sent[0][name], sent[1][name])


def test_nothing_leaves_a_client_whose_ledger_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses a charge leaves the round without that client, and the adapter as is."""
    federation = server(folder, num_clients=1, rounds=1)
    before = trainable_arrays(federation.model)
    synced, charges = os.fsync, []

    def refuse_charges(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().name == "ledger.jsonl":
            charges.append(descriptor)
            if len(charges) > 2:  # the opening and the note of the seed
                raise OSError(28, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_charges)
    history = federation.train(clients=[client(folder, 1)])
    assert len(charges) > 2
    assert history.rounds[0].survivors == ()
    assert history.rounds[0].failed == {"node 1": COULD_NOT}
    after = trainable_arrays(federation.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_step_is_in_the_ledger_before_the_update_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an update is about to leave, its steps are already read back from the disk."""
    seen: list[int] = []
    one = client(folder, 1)
    keep = one._last.keep

    def look(update: Any, *, request: str) -> None:
        seen.append(len(read_ledger(path=folder / "site-1" / "ledger.jsonl").releases))
        keep(update, request=request)

    monkeypatch.setattr(one._last, "keep", look)
    server(folder, num_clients=1).train(clients=[one])
    assert seen == [3, 6]


def test_a_client_stops_when_its_budget_is_spent(folder: Path) -> None:
    """Noise sized for one round pays for one; in the second the client says so, others go on."""
    history = server(folder).train(
        clients=[client(folder, 1, dp={"most_rounds": 1}, fixed_seed=None), client(folder, 2)]
    )
    assert history.rounds[0].survivors == ("site-1", "site-2")
    assert history.rounds[1].survivors == ("site-2",)
    assert history.rounds[1].failed["site-1"].startswith(SPENT)
    assert 0 < history.epsilons()["site-1"] <= 20.0


def test_personal_budgets_hold_under_random_participation(folder: Path) -> None:
    """Whoever is asked when, no client's ledger ever costs more than that client's own budget."""
    budgets = {1: 2.0, 2: 6.0, 3: 20.0}
    clients = [
        client(folder, n, dp={"epsilon": epsilon, "most_rounds": 2}, fixed_seed=None)
        for n, epsilon in budgets.items()
    ]
    history = server(folder, num_clients=3, rounds=5).train(
        clients=clients, client_sampling_rate=0.6
    )
    assert len(history.rounds) == 5
    for number, one in enumerate(clients, start=1):
        spent = history.epsilons().get(f"site-{number}", 0.0)
        assert spent <= budgets[number]
        if spent:
            assert one.training.spent.epsilon == spent
    noises = [each._training.plan.noise_multiplier for each in clients if each._training]
    assert noises == sorted(noises, reverse=True)


def test_composing_the_run_anew_gives_each_clients_own_epsilon(folder: Path) -> None:
    """`dpacc compose` on what the server wrote prices each client as its own ledger does."""
    clients = [
        client(folder, 1, dp={"most_rounds": 1}, fixed_seed=None),
        client(folder, 2, fixed_seed=None),
    ]
    history = server(folder).train(clients=clients)
    rounds = folder / "rounds.yaml"
    rounds.write_text(yaml.safe_dump(history.federation()))
    told = CliRunner().invoke(dpacc, ["compose", str(rounds), "--json"], catch_exceptions=False)
    prices = {each["name"]: each for each in json.loads(told.stdout)["prices"]}
    for one in clients:
        own = one.training.spent.epsilon
        assert prices[one.client_id]["server"]["epsilon"] == pytest.approx(own, rel=1e-9)
        assert prices[one.client_id]["within_budget"] is True


def test_a_server_that_restarts_goes_on_with_the_same_run(folder: Path) -> None:
    """Stopped after one of two rounds and started anew, it ends as if it had never stopped."""
    clients = [client(folder, 1), client(folder, 2)]
    whole = server(folder, folder=folder / "whole")
    whole.train(clients=clients)
    for each in clients:
        each.close()
    other = folder / "again"
    other.mkdir()
    again = [client(folder, n, folder=other / f"site-{n}") for n in (1, 2)]
    stopped = server(folder, folder=other / "server")

    def die_after_one(model: torch.nn.Module) -> dict[str, float]:
        if len(stopped.history.rounds) == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        stopped.train(clients=again, measure=die_after_one)
    # It died after the clients had answered round 2 and before that was kept.
    resumed = server(folder, folder=other / "server")
    history = resumed.train(clients=again)
    assert len(history.rounds) == 2
    assert [each.training.steps_charged for each in again] == [6, 6]
    for name, values in trainable_arrays(whole.model).items():
        assert np.array_equal(values, trainable_arrays(resumed.model)[name])


def test_a_kept_state_resumes_after_its_last_round_only_with_the_same_settings(
    folder: Path,
) -> None:
    """A finished federation started again asks nobody; other settings are refused by name."""
    clients = [client(folder, 1), client(folder, 2)]
    server(folder).train(clients=clients)
    charged = [each.training.steps_charged for each in clients]
    assert len(server(folder).train(clients=clients).rounds) == 2
    assert [each.training.steps_charged for each in clients] == charged
    with pytest.raises(ConfigurationError, match="other settings"):
        server(folder, lora_config=replace(LORA, seed=1)).train(clients=clients)


def test_a_client_that_restarts_goes_on_where_its_ledger_stands(folder: Path) -> None:
    """Its second life takes the steps that are left, and then stops for good."""
    first = client(folder, 1)
    server(folder, num_clients=1, rounds=2, folder=folder / "a").train(clients=[first])
    first.close()
    second = client(folder, 1)
    history = server(folder, num_clients=1, rounds=2, folder=folder / "b").train(clients=[second])
    assert all(report.survivors == () for report in history.rounds)
    assert history.rounds[0].failed["node 1"].startswith(SPENT)
    assert len(read_ledger(path=folder / "site-1" / "ledger.jsonl").releases) == 6


def test_a_promise_that_a_client_does_not_keep_is_refused(folder: Path) -> None:
    """A client whose budget is larger than the federation's gives nothing to the average."""
    promised = PrivacyBudget(epsilon=10.0, delta=DELTA)
    federation = server(folder, rounds=1, privacy_budget=promised)
    clients = [client(folder, 1, dp={"epsilon": 10.0}), client(folder, 2)]
    history = deployed_in_process(federation.app(), clients, federation)
    assert history.rounds[0].survivors == ("site-1",)
    assert "promises at most epsilon=10" in next(iter(history.rounds[0].failed.values()))


def test_adapters_of_another_layout_are_refused_before_any_charge(folder: Path) -> None:
    """Another seed draws another A: the client refuses, and its ledger holds no step."""
    stranger = client(
        folder, 1, lora_config=LoraSettings(rank=2, target_modules=LORA.target_modules, seed=5)
    )
    history = server(folder, num_clients=1, rounds=1).train(clients=[stranger])
    assert "layout differs" in history.rounds[0].failed["node 1"]
    assert not (folder / "site-1/ledger.jsonl").exists()


def test_the_layout_names_what_averaging_takes_for_granted(folder: Path) -> None:
    """Equal settings give equal hashes; another rank, scale or A another one."""
    same = [server(folder)._layout for _ in range(2)]
    others = [
        LoraSettings(rank=3, target_modules=LORA.target_modules),
        LoraSettings(rank=2, alpha=8.0, target_modules=LORA.target_modules),
        LoraSettings(rank=2, seed=1, target_modules=LORA.target_modules),
    ]
    different = {server(folder, lora_config=each)._layout for each in others}
    assert same[0] == same[1]
    assert len(different | {same[0]}) == 4


def test_a_client_tells_what_its_ledger_holds_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the adapter: name, rank, unit, eight numbers and what voids them, all of it public."""
    one, answers = client(folder, 1), []
    answer = one.answer
    monkeypatch.setattr(one, "answer", lambda asked: answers.append(answer(asked)) or answers[-1])
    server(folder, num_clients=1, rounds=1).train(clients=[one])
    (told,) = [each.content for each in answers]
    assert set(told) == {"arrays", "metrics", "config"}
    assert set(told["arrays"]) == set(trainable_arrays(one.training._model))
    assert dict(told["config"]) == {"client": "site-1", "rank": 2, "unit": "example"}
    plan = one.training.plan
    assert dict(told["metrics"]) == {
        "epsilon": float("inf"),
        "void-because-of:fixed-seed": 1.0,
        "delta": DELTA,
        "epsilon-budget": 20.0,
        "noise-multiplier": plan.noise_multiplier,
        "sampling-probability": 4 / 12,
        "steps-charged": 3,
        "steps-taken": 3,
        "choice-epsilon": 0.0,
    }


def test_clients_may_skip_the_layers_beneath_the_adapters(folder: Path) -> None:
    """With activations computed once, two rounds leave the same adapter and the same head."""
    model = str(classifier_folder(folder))
    lora = LoraSettings(rank=2, target_modules=("query", "dense"), top_layers=1)
    task = {"task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16}
    left = []
    for place in ("whole", "cached"):
        (folder / place).mkdir()
        data = opinions(folder / place / "data.jsonl", count=12, seed=1)
        cached = {"cache_frozen_activations": place == "cached"}
        own = {"model_name": model, "lora_config": lora, "task": task | cached}
        only = client(folder / place, 1, data_path=data, **own)
        federation = server(
            folder / place, model_name=model, lora_config=lora, num_clients=1, task=task
        )
        federation.train(clients=[only])
        left.append(trainable_arrays(federation.model))
        only.close()
        assert not any("frozen" in path.name for path in only.folder.iterdir())
    whole, cached_too = left
    assert any(np.abs(values).max() > 0 for name, values in whole.items() if "lora_B" in name)
    assert all(np.allclose(whole[name], cached_too[name], atol=1e-6) for name in whole)


def test_rounds_are_told_as_they_are_kept(folder: Path) -> None:
    """Whoever watches hears of each round after it is on disk."""
    heard = []

    def hear(report: RoundReport) -> None:
        assert (folder / "server/state.json").exists()
        heard.append((report.number, report.survivors))

    server(folder).train(clients=[client(folder, n) for n in (1, 2)], on_round=hear)
    assert heard == [(1, ("site-1", "site-2")), (2, ("site-1", "site-2"))]
