"""A round that breaks what is measured in public is given up, and paid for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Message
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.federated import FederatedServer, Rollback
from dpacc.federated.aggregation.averaging import Aggregate
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.server.adapter_card import adapter_card
from dpacc.federated.server.strategy import _believable
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.layout import flat, load_arrays, trainable_arrays
from tests.dpacc.federated.federations import LORA, client, server

TOLERANT = Rollback(tolerated_drop=0.1)


@pytest.mark.parametrize(
    ("settings", "before", "after", "said"),
    [
        ({}, {"a": 0.8, "b": 0.6}, {"a": 0.5, "b": 0.6}, "fell from 0.7 to 0.55"),
        ({}, {"a": 0.8, "b": 0.6}, {"a": 0.65, "b": 0.6}, ""),
        ({}, {"a": 0.5}, {"a": 0.9}, ""),
        ({}, {"a": 0.5}, {"a": math.nan}, "is nan"),
        ({}, {"a": 0.5, "b": 0.5}, {"a": math.inf, "b": 0.5}, "is inf"),
        ({"figure": "a"}, {"a": 0.5, "b": 0.9}, {"a": 0.5, "b": 0.0}, ""),
        ({"figure": "b"}, {"a": 0.5, "b": 0.9}, {"a": 0.5, "b": 0.0}, "b fell from 0.9 to 0"),
        ({"smaller_is_better": True}, {"loss": 2.0}, {"loss": 2.2}, "rose from 2 to 2.2"),
        ({"smaller_is_better": True}, {"loss": 2.0}, {"loss": 1.0}, ""),
        ({}, {}, {"a": 0.1}, ""),
        ({}, {"a": math.nan}, {"a": 0.1}, ""),
    ],
)
def test_what_is_refused(
    settings: dict[str, Any], before: Mapping[str, float], after: Mapping[str, float], said: str
) -> None:
    """A fall beyond what is tolerated, of the named figure or of their mean, and no number."""
    found = Rollback(tolerated_drop=0.1, **settings).refusal(before=before, after=after)
    assert said in found
    assert bool(found) == bool(said)


class Turning(DPLoRAClient):
    """Honest but in round 2."""

    def answer(self, message: Message) -> Message:
        """Its update, ten thousand times as long in that round."""
        reply = super().answer(message)
        if message.content.config_records["config"]["server-round"] == 2:
            arrays = reply.content.array_records["arrays"]
            for name in list(arrays):
                arrays[name] = Array(1e4 * arrays[name].numpy())
        return reply


def smallness(model: nn.Module) -> dict[str, float]:
    """One but for how far the adapter strays from nothing."""
    return {"accuracy": 1 - min(1.0, float(np.linalg.norm(flat(trainable_arrays(model)))))}


def federation(folder: Path, name: str) -> tuple[FederatedServer, list[DPLoRAClient]]:
    """Three rounds of two clients, one of which turns in the second."""
    clients = [client(folder, n, folder=folder / name / f"site-{n}") for n in (1, 2)]
    clients[1].__class__ = Turning
    return server(folder, rounds=3, folder=folder / name / "server"), clients


def test_a_round_that_breaks_quality_is_given_up_and_paid_for(folder: Path) -> None:
    """The next begins from the adapter before it; report, card and every ε count it."""
    run, clients = federation(folder, "run")
    kept = []
    history = run.train(
        clients=clients,
        measure=smallness,
        rollback=TOLERANT,
        on_round=lambda _: kept.append(flat(trainable_arrays(run.model))),
    )
    first, second, third = history.rounds
    assert "fell from" in second.rolled_back
    assert first.rolled_back == third.rolled_back == ""
    assert second.quality == first.quality
    assert np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[1], kept[2])
    assert list(history.rolled_back) == [2]
    assert history.moved
    assert [each.training.steps_charged for each in clients] == [9, 9]
    priced = {each.name: each.server.epsilon for each in history.guarantee().prices}
    assert priced == pytest.approx(history.epsilons(), rel=1e-6)
    assert all(spent > 19 for spent in priced.values())
    card = adapter_card(base="m", history=history, lora=LORA, aggregation="ffa", rounds=3)
    assert "| rounds | 3 of 3, 1 of them given up, and counted in every ε |" in card


def test_a_server_that_restarts_after_one_ends_as_if_it_never_had(folder: Path) -> None:
    """Killed after the round was given up, or while it was measured."""
    whole, clients = federation(folder, "whole")
    whole.train(clients=clients, measure=smallness, rollback=TOLERANT)
    for death in (1, 2):
        dying, others = federation(folder, f"again-{death}")

        def die(
            model: nn.Module, run: FederatedServer = dying, at: int = death
        ) -> dict[str, float]:
            if len(run.history.rounds) == at:
                raise KeyboardInterrupt
            return smallness(model)

        with pytest.raises(KeyboardInterrupt):
            dying.train(clients=others, measure=die, rollback=TOLERANT)
        goes_on = server(folder, rounds=3, folder=folder / f"again-{death}" / "server")
        history = goes_on.train(clients=others, measure=smallness, rollback=TOLERANT)
        assert list(history.rolled_back) == [2]
        for name, values in trainable_arrays(whole.model).items():
            assert np.array_equal(values, trainable_arrays(goes_on.model)[name])


def test_rounds_that_were_all_given_up_are_no_success(folder: Path) -> None:
    """The reason is the measured one."""
    one = client(folder, 1)
    run = server(folder, num_clients=1, rounds=1)
    nothing = iter([0.9, math.nan])
    run.train(clients=[one], measure=lambda _: {"a": next(nothing)}, rollback=TOLERANT)
    assert not run.history.moved
    (price,) = run.history.guarantee().prices
    assert price.server.epsilon == pytest.approx(one.training.spent.epsilon, rel=1e-6)
    with pytest.raises(ConfigurationError, match="mean quality is nan"):
        run.history.require_moved()


def test_finite_parts_of_an_infinite_product_are_caught(folder: Path) -> None:
    """A = B = 10³⁰: the aggregate is not believed, and what is measured of it is no number."""
    both = LoraSettings(rank=2, method="lora", target_modules=LORA.target_modules)
    run = server(folder, lora_config=both)
    start = trainable_arrays(run.model)
    huge = {name: np.full_like(values, 1e30) for name, values in start.items()}
    kept = _believable(Aggregate(arrays=huge), before=start, names=["north"])
    assert kept.arrays is start
    assert "north" in kept.filtered
    load_arrays(run.model, huge)
    with torch.no_grad():
        loss = float(run.model(input_ids=torch.ones((1, 4), dtype=torch.long)).logits.mean())
    assert TOLERANT.refusal(before={"loss": 1.0}, after={"loss": loss})


def test_a_rollback_that_compares_nothing_is_refused_before_anybody_is_asked(folder: Path) -> None:
    """Without a measure, or with a figure that it does not return."""
    one = client(folder, 1)
    run = server(folder, num_clients=1)
    with pytest.raises(ConfigurationError, match="rollback without measure"):
        run.train(clients=[one], rollback=TOLERANT)
    other = Rollback(tolerated_drop=0.1, figure="f1")
    with pytest.raises(ConfigurationError, match="compares f1, and measure returns accuracy"):
        run.train(clients=[one], measure=smallness, rollback=other)
    assert not (folder / "site-1/ledger.jsonl").exists()
