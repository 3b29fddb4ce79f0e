"""What a deployed federation is told, and what it does about clients that never answer."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from dpacc_accounting import read_ledger
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.common.config import flatten_dict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.supercore import heartbeat
from flwr.supercore.retry import retry_invoker

from dpacc.errors import ConfigurationError
from dpacc.federated.clients import local_training
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_client import answer_once, client_of
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.requests import COULD_NOT
from dpacc.federated.secure_sum.messages import KEYS, RECORD
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.run_results import write_results
from dpacc.federated.updates.layout import trainable_arrays
from tests.dpacc.federated.deployment.shipped_app import Processes
from tests.dpacc.federated.federations import DELTA, client, node_settings, server

APP = Path(__file__).parents[3] / "recipes/federation"
RUN: UserConfig = {
    "model": "model",
    "num-clients": 1,
    "rounds": 1,
    "epsilon": 50.0,
    "delta": DELTA,
    "lora-rank": 2,
    "lora-target-modules": "q_proj,v_proj",
}


def node(folder: Path, **changes: Any) -> UserConfig:
    """What one node's operator writes."""
    return node_settings(folder, "north") | changes


def run_with(run: FederatedServer, grid: LocalGrid, **settings: Any) -> None:
    """All rounds on this grid."""
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    run.app(**settings)(grid, context)


def test_every_setting_of_the_shipped_app_is_known() -> None:
    """`flwr run` can only override what the app's file names: it names every setting."""
    project = tomllib.loads((APP / "pyproject.toml").read_text())
    config = flatten_dict(project["tool"]["flwr"]["app"]["config"])
    named = {name.replace("-", "_") for name in config}
    assert named == {field.name for field in fields(RunSettings)}
    shipped = read_config(RunSettings, config)
    assert shipped.lora.target_modules == ("q_proj", "v_proj")
    assert shipped.learned == {"task": "causal-lm", "labels": None}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epsilonn": 1.0}, "did you mean epsilon"),
        ({"delta": 1.5}, "delta=1.5 must be below 1"),
        ({"expected-batch-size": 2.5}, "must be a whole number"),
        ({"config": "/etc/hostname"}, "unknown setting config"),
    ],
)
def test_what_a_node_cannot_mean_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """By name; and no setting opens a file of settings."""
    with pytest.raises(ConfigurationError, match=reason):
        read_config(NodeSettings, node(tmp_path, **change))


def test_the_shipped_client_trains_and_lets_go_of_its_ledger(folder: Path) -> None:
    """A process for each message: two clients one after the other take two rounds' steps."""
    run = server(folder, num_clients=1)

    processes = Processes(1, node_of=lambda _: node(folder), config=RUN | {"rounds": 2})
    run_with(run, processes)
    assert [report.failed for report in run.history.rounds] == [{}, {}]
    assert len(read_ledger(path=folder / "north/ledger.jsonl").releases) == 6
    write_results(run, folder=folder / "server")
    assert (folder / "server/adapter/adapter_config.json").exists()
    kept = json.loads((folder / "server/history.json").read_text())
    assert History.from_json(kept).epsilons() == run.history.epsilons()
    (priced,) = yaml.safe_load((folder / "server/rounds.yaml").read_text())["clients"]
    assert priced["name"] == "north"


@pytest.mark.parametrize("beats", [heartbeat, retry_invoker])
def test_a_heartbeat_during_the_probe_stops_no_client(
    folder: Path, monkeypatch: pytest.MonkeyPatch, beats: ModuleType
) -> None:
    """Flower's threads draw while a model runs forward; the model has drawn nothing, and trains."""
    monkeypatch.setattr(beats, "random", random)
    losses = local_training.losses_for

    def beating(**given: Any) -> Any:
        def with_a_beat(model: Any, batch: Any) -> Any:
            vars(beats)["random"].uniform(0, 1)
            return losses(**given)(model, batch)

        return with_a_beat

    monkeypatch.setattr(local_training, "losses_for", beating)
    run = server(folder, num_clients=1, rounds=1)
    run_with(run, Processes(1, node_of=lambda _: node(folder), config=RUN))
    assert run.history.rounds[0].survivors == ("north",)


def test_a_process_for_each_round_trains_as_one_for_all(folder: Path) -> None:
    """AdamW's state survives between rounds: bit for bit, new clients end where one client does."""
    lasting = server(folder, num_clients=1, folder=folder / "lasting")
    lasting.train(clients=[client(folder, 1, folder=folder / "lasting-1")])
    again = server(folder, num_clients=1, folder=folder / "again")

    class Anew(LocalGrid):
        def _ask(self, node_id: int, message: Message) -> Message:
            return answer_once(
                lambda: client(folder, 1, folder=folder / "again-1"),
                message,
                self._contexts[node_id],
            )

    run_with(again, Anew({1: client(folder, 1).app}))
    assert len(again.history.rounds) == 2
    for name, values in trainable_arrays(lasting.model).items():
        assert np.abs(values).max() > 0 or "lora_A" in name
        assert np.array_equal(values, trainable_arrays(again.model)[name])


def test_a_node_that_cannot_be_a_client_says_only_so(tmp_path: Path) -> None:
    """Neither its paths nor its settings leave it in the text of an error."""
    secret = node(tmp_path, **{"unit-field": "patient", "most-rounds": -1})
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    asked.metadata.__dict__["_message_id"] = "1"
    memory = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    answer = answer_once(lambda: client_of(node_config=secret, run_config=RUN), asked, memory)
    assert answer.error.reason == COULD_NOT


@pytest.mark.parametrize("wanted", [3, 2, None])
def test_shipped_clients_add_up_in_secret(folder: Path, wanted: int | None) -> None:
    """A node that insists on sums takes part in those with its threshold, and no node without."""
    run_config = RUN | {"num-clients": 3, "rounds": 1, "secure-threshold": 3}
    shared = read_config(RunSettings, run_config)
    run = server(folder, num_clients=3, rounds=1, secure_sum=shared.secure_sum)
    change = {} if wanted is None else {"secure-threshold": wanted, "secure-clients": 3}

    def site(number: int) -> UserConfig:
        own = {"client-id": f"site-{number}", "folder": str(folder / f"site-{number}")}
        return node(folder, **change) | own

    run_with(run, Processes(3, node_of=site, config=run_config))
    (report,) = run.history.rounds
    if wanted == 3:
        assert report.survivors == ("site-1", "site-2", "site-3")
    else:
        assert report.survivors == ()
        reason = "sends its updates alone" if wanted is None else "differs from this client's"
        assert all(reason in why for why in report.failed.values())


@pytest.mark.parametrize(
    "servers",
    [
        {"secure-protocol": "pairwise"},
        {"num-clients": 4, "secure-threshold": 3},
        {"secure-colluding": 1},
        {"secure-threshold": 2},
    ],
)
def test_a_nodes_own_file_decides_which_sum_it_takes_part_in(
    folder: Path, servers: dict[str, Any]
) -> None:
    """Protocol, number, threshold and colluders: a server with others is refused at the keys."""
    run_config = RUN | {"num-clients": 3, "secure-threshold": 3} | servers
    owns = {"secure-threshold": 3, "secure-clients": 3}
    its_own = read_config(RunSettings, run_config).secure_sum
    assert its_own is not None
    told = ConfigRecord({"session": "a session", "agreed": its_own.agreed(None)})
    LocalGrid({})  # Flower's messages belong to a run
    asked = Message(RecordDict({RECORD: told}), dst_node_id=1, message_type=f"query.{KEYS}")
    asked.metadata.__dict__["_message_id"] = "1"
    memory = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    make = partial(client_of, node_config=node(folder, **owns), run_config=run_config)
    answer = answer_once(make, asked, memory)
    assert "differs from this client's" in answer.error.reason


def test_half_a_sum_is_refused(tmp_path: Path) -> None:
    """A threshold without the number of clients says nothing of how many may be invented."""
    with pytest.raises(ConfigurationError, match="secure_threshold=3 and secure_clients=None"):
        read_config(NodeSettings, node(tmp_path, **{"secure-threshold": 3}))


class Unreachable(LocalGrid):
    """The second node never answers, or its link says that it is gone."""

    def __init__(self, apps: Any, *, link_answers: bool) -> None:
        super().__init__(apps)
        self._link_answers = link_answers
        self.timeouts: list[float | None] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        messages = list(messages)
        self.timeouts += [timeout] if messages else []
        reachable = [each for each in messages if each.metadata.dst_node_id != 2]
        replies = list(super().send_and_receive(reachable))
        for each in messages:
            if self._link_answers and each not in reachable:
                each.metadata.__dict__["_message_id"] = "lost"
                replies.append(
                    create_message_error_unavailable_res_message(each.metadata, "node_unavailable")
                )
        return replies


@pytest.mark.parametrize("link_answers", [False, True])
def test_a_client_that_never_answers_is_reported_by_name(folder: Path, link_answers: bool) -> None:
    """The round ends after its timeout, without it; its number is its own, not the link's."""
    apps = {number: client(folder, number).app for number in (1, 2)}
    grid = Unreachable(apps, link_answers=link_answers)
    run = server(folder)
    run_with(run, grid, round_timeout=17.0)
    assert grid.timeouts == [17.0, 17.0]
    assert [report.survivors for report in run.history.rounds] == [("site-1",), ("site-1",)]
    for report in run.history.rounds:
        assert set(report.failed) == {"node 2"}
        said = "Node Unavailable" if link_answers else "no answer"
        assert said in report.failed["node 2"]


def test_a_run_does_not_begin_without_its_clients(folder: Path) -> None:
    """One of two connects: after the timeout the run stops, naming both numbers."""
    run = server(folder)
    with pytest.raises(ConfigurationError, match=r"1 of 2 clients connected within 0\.1 s"):
        run_with(run, LocalGrid({1: client(folder, 1).app}), connect_timeout=0.1)


def test_a_restarted_run_goes_on_with_who_is_left(folder: Path) -> None:
    """What was begun by two is finished by the one that is still there."""
    first = server(folder)
    clients = [client(folder, 1), client(folder, 2)]
    apps = {number: each.app for number, each in enumerate(clients, start=1)}

    class Stops(LocalGrid):
        def send_and_receive(self, *given: Any, **named: Any) -> Iterable[Message]:
            if first.history.rounds:
                raise KeyboardInterrupt
            return super().send_and_receive(*given, **named)

    with pytest.raises(KeyboardInterrupt):
        run_with(first, Stops(apps))
    again = server(folder)
    run_with(again, LocalGrid({1: apps[1]}), connect_timeout=0.1)
    assert [report.survivors for report in again.history.rounds] == [
        ("site-1", "site-2"),
        ("site-1",),
    ]
