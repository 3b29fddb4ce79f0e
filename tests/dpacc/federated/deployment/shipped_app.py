"""The shipped app in one process: each message is answered by a client that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from dpacc.federated.deployment.final_adapter import FINAL, take_adapter
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_client import answer_once, client_of
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.deployment.server_run import run_server
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.in_process_grid import LocalGrid
from tests.dpacc.federated.federations import DELTA, node_settings

NodeOf = Callable[[int], UserConfig]


class Processes(LocalGrid):
    """A process for each message, as a SuperNode starts them."""

    def __init__(self, nodes: int, *, node_of: NodeOf, config: UserConfig) -> None:
        super().__init__({number: ClientApp() for number in range(1, nodes + 1)})
        self._node_of, self._config = node_of, config

    def _ask(self, node: int, message: Message) -> Message:
        if message.metadata.message_type == f"query.{FINAL}":
            return take_adapter(message, node_config=self._node_of(node), run_config=self._config)
        make = lambda: client_of(node_config=self._node_of(node), run_config=self._config)  # noqa: E731
        return answer_once(make, message, self._contexts[node])


def run_config(folder: Path, **changes: Any) -> UserConfig:
    """What a run's operator writes: two nodes, two rounds."""
    config: UserConfig = {
        "model": str(folder / "model"),
        "num-clients": 2,
        "rounds": 2,
        "epsilon": 50.0,
        "delta": DELTA,
        "lora-rank": 2,
        "lora-target-modules": "q_proj,v_proj",
        "connect-timeout": 0.1,
        "folder": str(folder / "server"),
    }
    return config | {name.replace("_", "-"): value for name, value in changes.items()}


def shipped(
    config: UserConfig, node_of: NodeOf, *, connected: int | None = None
) -> FederatedServer:
    """All rounds of the run, by the server that the shipped app starts."""
    run = read_config(RunSettings, config)
    grid = Processes(connected or run.num_clients, node_of=node_of, config=config)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    return run_server(run, grid=grid, context=context)


def nodes(folder: Path, **changes: Any) -> NodeOf:
    """Nodes that differ by name, data and folder alone."""
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda number: node_settings(folder, f"site-{number}", seed=number) | changed
