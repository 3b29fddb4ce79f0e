"""A deployed federation whose server adds the noise: its settings, and its nodes' consent."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import read_ledger
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_client import answer_once, client_of, require_readable
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.run_results import write_results
from tests.dpacc.federated.federations import node_settings, server
from tests.dpacc.federated.test_deployment import APP, RUN

CLIENT_LEVEL: UserConfig = {
    **RUN,
    "num-clients": 2,
    "rounds": 3,
    "epsilon": 8.0,
    "level": "client",
    "clipping-norm": 0.5,
    "min-separation": 2,
    "correlation": "buffers",
}
_OWN = ("epsilon", "delta", "most-rounds")


def trusting_node(folder: Path, number: int, **changes: Any) -> UserConfig:
    """A node that leaves noise and books to the server."""
    whole = node_settings(folder, f"site-{number}", seed=number)
    return {k: v for k, v in whole.items() if k not in _OWN} | {"trusts-server": True} | changes


def run_of(folder: Path, config: UserConfig, node: Any) -> FederatedServer:
    """All rounds as the shipped app runs them, a process for each message."""
    told = read_config(RunSettings, config)

    class Processes(LocalGrid):
        def _ask(self, node_id: int, message: Message) -> Message:
            return answer_once(
                lambda: client_of(node_config=node(node_id), run_config=config),
                message,
                self._contexts[node_id],
            )

    run = server(
        folder,
        rounds=told.rounds,
        privacy_budget=told.budget,
        client_privacy=told.client_privacy,
        secure_sum=told.secure_sum,
    )
    grid = Processes(dict.fromkeys((1, 2), run.app()))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    run.app(client_nodes=told.listed)(grid, context)
    return run


def test_nodes_take_turns_as_the_run_says(folder: Path) -> None:
    """Three rounds, two apart: each node when it is its turn, at a cost of at most ε = 8, and who
    is who by the server's list.
    """
    (folder / "clients.toml").write_text("site-1 = 1\nsite-2 = 2\n")
    listed = {**CLIENT_LEVEL, "client-nodes": str(folder / "clients.toml")}
    run = run_of(folder, listed, lambda number: trusting_node(folder, number))
    assert [report.survivors for report in run.history.rounds] == [
        ("site-2",),
        ("site-1",),
        ("site-2",),
    ]
    record = read_ledger(path=folder / "server" / "ledger.jsonl")
    assert (record.event.rounds, record.event.separation) == (3, 2)
    assert len(record.event.decays) == 2
    assert record.notes == ()
    (price,) = run.history.guarantee().prices
    assert 7.99 < price.released.epsilon <= 8.0
    write_results(run, folder=folder / "server")
    assert "correlated" in (folder / "server" / "rounds.yaml").read_text()


def test_a_node_that_trusts_nobody_gives_such_a_server_nothing(folder: Path) -> None:
    """Consent is the node's own: what the run says changes nothing about it."""
    run = run_of(folder, CLIENT_LEVEL, lambda number: node_settings(folder, f"site-{number}"))
    assert all(not report.survivors for report in run.history.rounds)
    why = next(iter(run.history.rounds[0].failed.values()))
    assert "adds its own noise" in why


def test_nor_does_a_trusting_node_to_a_server_without_noise(folder: Path) -> None:
    """Under example-level privacy it answers nothing of its data."""
    config: UserConfig = {**RUN, "num-clients": 2}
    run = run_of(folder, config, lambda number: trusting_node(folder, number))
    assert run.history.rounds[0].survivors == ()
    assert all("hold no noise" in why for why in run.history.rounds[0].failed.values())


def test_a_trusting_nodes_records_are_read_before_it_connects(folder: Path) -> None:
    """And one that does not fit stops it there."""
    require_readable(trusting_node(folder, 1))
    with pytest.raises(ConfigurationError):
        require_readable(trusting_node(folder, 1, **{"text-field": "nothing"}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clipping-norm": "null"}, "give its norm"),
        ({"level": "example"}, "at example level clients clip"),
        ({"level": "example", "clipping-norm": "null"}, "need not wait"),
        (
            {
                "level": "example",
                "clipping-norm": "null",
                "min-separation": 1,
                "client-nodes": "clients.toml",
            },
            "a name decides nothing",
        ),
        ({"min-separation": 0}, "min_separation=0 must be at least 1"),
        ({"correlation": "tree"}, "correlation"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(change: UserConfig, reason: str) -> None:
    """By the setting, before anybody is asked."""
    with pytest.raises(ConfigurationError, match=reason):
        read_config(RunSettings, {**CLIENT_LEVEL, **change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trusts-server": False}, "epsilon is required"),
        ({"epsilon": 8.0}, "epsilon with trusts_server"),
        ({"most-rounds": 3}, "most_rounds with trusts_server"),
        ({"rank": 1}, "rank with trusts_server"),
        ({"unit-field": "who"}, "unit_field with trusts_server"),
        ({"secure-threshold": 2, "secure-clients": 2}, "secure_threshold with trusts_server"),
    ],
)
def test_a_node_that_contradicts_itself_is_refused(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    """A setting that would have no effect is no promise to its owner."""
    with pytest.raises(ConfigurationError, match=reason):
        read_config(NodeSettings, trusting_node(folder, 1, **change))


def test_a_secure_sum_of_such_rounds_is_refused(folder: Path) -> None:
    """Clients that share noise draw it anew each round."""
    config = {**CLIENT_LEVEL, "secure-threshold": 2}
    with pytest.raises(ConfigurationError, match="secure_sum with correlated noise"):
        run_of(folder, config, lambda number: trusting_node(folder, number))


def test_the_shipped_app_runs_at_example_level() -> None:
    """Unless the run's own file says otherwise."""
    shipped = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    told = read_config(RunSettings, {n: v for n, v in shipped.items() if not isinstance(v, dict)})
    assert (told.level, told.client_privacy) == ("example", None)
    assert told.budget is not None
