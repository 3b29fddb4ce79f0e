"""Who took part, under which name, and for whom its ε holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import price_federation, read_federation, read_ledger
from dpacc_accounting.federation.fields import FieldError
from flwr.app import Context, Message, RecordDict
from safetensors import safe_open
from torch import Tensor

from dpacc.errors import ConfigurationError
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.run_results import write_results
from dpacc.federated.settings import Task
from dpacc.federated.updates.layout import trainable_arrays
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.logical_step import LogicalStep
from tests.dpacc.federated.federations import DELTA, WORDS, client, server

KEPT_BY_NAME = ("history.json", "rounds.jsonl", "rounds.yaml", "state.json")


def test_no_file_of_a_model_names_who_took_part(folder: Path) -> None:
    """Adapters hold numbers alone; the rounds are in a file that only its owner reads."""
    run = server(folder)
    run.train(clients=[client(folder, n, client_id=f"hospital-{n}") for n in (1, 2)])
    write_results(run, folder=folder / "server")
    kept = {path.name for path in (folder / "server").iterdir()}
    shared = folder / "server/adapter-0002.safetensors"
    assert kept == {"adapter", shared.name, *KEPT_BY_NAME}
    with safe_open(shared, framework="numpy") as file:
        assert not file.metadata()
    for path in [shared, *(folder / "server/adapter").rglob("*")]:
        assert b"hospital" not in path.read_bytes()
    for name in ("state.json", "rounds.jsonl"):
        assert "hospital-1" in (folder / "server" / name).read_text()
        assert (folder / "server" / name).stat().st_mode & 0o777 == 0o600


class Stops(LocalGrid):
    """Ends the server before its second round."""

    run_of: FederatedServer

    def send_and_receive(self, *given: Any, **named: Any) -> Iterable[Message]:
        if self.run_of.history.rounds:
            raise KeyboardInterrupt
        return super().send_and_receive(*given, **named)


def test_a_name_belongs_to_the_node_that_bore_it_first(folder: Path) -> None:
    """Also after a restart: another node that says the same is told apart, and so are its books."""
    first, second = client(folder, 1), client(folder, 2)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    begun = server(folder)
    grid = Stops({1: first.app, 2: second.app})
    grid.run_of = begun
    with pytest.raises(KeyboardInterrupt):
        begun.app()(grid, context)
    stranger = client(folder, 3, client_id="site-1")
    again = server(folder)
    again.app(connect_timeout=0.1)(LocalGrid({3: stranger.app, 2: second.app}), context)
    assert again.history.nodes == {"site-1": 1, "site-2": 2, "site-1 (node 3)": 3}
    assert again.history.rounds[1].survivors == ("site-2", "site-1 (node 3)")
    counted = {
        each["name"]: sum(part["local_steps"] * part["rounds"] for part in each["schedule"])
        for each in again.history.federation()["clients"]
    }
    assert counted == {"site-1": 3, "site-2": 6, "site-1 (node 3)": 3}


def test_each_price_is_of_its_clients_own_unit(folder: Path) -> None:
    """One protects a patient's rows, the other each row: the books, and the prices, say which."""
    rows = [{"text": " ".join(WORDS[at : at + 3]), "patient": f"p{at % 6}"} for at in range(8)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    patients = client(
        folder,
        1,
        data_path=folder / "rows.jsonl",
        dp={"unit_field": "patient", "expected_batch_size": 3},
    )
    history = server(folder, rounds=1).train(clients=[patients, client(folder, 2)])
    assert {each["name"]: each["unit"] for each in history.federation()["clients"]} == {
        "site-1": "patient",
        "site-2": "example",
    }
    found = history.guarantee()
    assert {each.name: each.server.unit for each in found.prices} == {
        "site-1": "patient",
        "site-2": "example",
    }
    assert "example or patient" in found.assumptions[0]


def test_at_most_so_many_rows_of_a_clients_unit_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a patient's four rows a step takes two, and so does the choice of a rank; the ledger says
    so, and the price is a patient's.
    """
    rows = [{"text": " ".join(WORDS[at : at + 3]), "patient": f"p{at % 2}"} for at in range(8)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dp = {"unit_field": "patient", "unit_cap": 2, "expected_batch_size": 2}
    capped = client(folder, 1, data_path=folder / "rows.jsonl", dp=dp)
    taken: list[int] = []
    computed = LogicalStep.backward

    def counted(step: LogicalStep, losses: Tensor) -> None:
        taken.append(len(losses))
        computed(step, losses)

    monkeypatch.setattr(LogicalStep, "backward", counted)
    history = server(folder, rounds=1, num_clients=1).train(clients=[capped])
    assert taken[-1] == 4  # both patients, in the one step; the probe's are before it
    assert history.federation()["clients"][0]["unit"] == "patient"
    plan = read_ledger(path=folder / "site-1" / "ledger.jsonl").plan
    assert (plan["unit"], plan["unit_cap"], plan["dataset_size"]) == ("patient", 2, 2)
    places: list[int] = []
    monkeypatch.setattr(capped.training, "_loss", lambda at: places.append(at) or 0.0)
    secret = RunSecret.from_fixed_seed(0)
    start = capped.training.ranks.widen(trainable_arrays(capped.training._model))
    capped.training.unit_losses(start, ranks=[1], voters=2, secret=secret)
    assert sorted(at % 2 for at in places) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"sampling": "examples"}, "set unit_cap in dp_config"),
        ({"unit_cap": 2}, "unit_cap, which is not about data"),
        ({"noise": "discrete_gaussian"}, "noise, which is not about data"),
    ],
)
def test_a_task_promises_nothing_that_no_client_does(setting: dict[str, Any], told: str) -> None:
    """Settings of a run that a federation does not read are refused by name, not passed over."""
    with pytest.raises(ConfigurationError, match=told):
        Task(fields=setting)


def test_units_of_clients_are_not_mixed_in_an_overlap() -> None:
    """A patient here and a row there add up to a promise to neither."""
    shared = {"rounds": 2, "local_steps": 3, "sampling_probability": 0.1, "noise_multiplier": 1.0}
    document: dict[str, Any] = {
        "level": "example",
        "delta": DELTA,
        "clients": [{"name": "a", "unit": "patient", **shared}, {"name": "b", **shared}],
        "overlaps": [["a", "b"]],
    }
    with pytest.raises(FieldError, match="units are example and patient"):
        read_federation(document=document)
    document["unit"] = "patient"
    (both,) = price_federation(federation=read_federation(document=document)).overlaps
    assert both.server.unit == "patient"
