"""A real deployment on this machine: one SuperLink, SuperNodes, TLS, and a death on the way."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from dpacc_accounting import read_ledger

from tests.dpacc.federated.deployed import (
    APP,
    Deployment,
    history_in,
    kill,
    write_node_key,
)
from tests.dpacc.federated.federations import DELTA, node_settings


@pytest.fixture
def deployment(folder: Path) -> Iterator[Deployment]:
    deployed = Deployment(folder)
    try:
        yield deployed
    finally:
        deployed.close()


def settings(folder: Path, name: str, seed: int) -> dict[str, Any]:
    return node_settings(folder, name, seed=seed) | {"folder": str(folder / "run" / name)}


def run_config(folder: Path) -> str:
    (folder / "run.toml").write_text(
        f"""
        model = "{folder / "model"}"
        num-clients = 2
        rounds = 2
        epsilon = 50.0
        delta = {DELTA}
        lora-rank = 2
        folder = "{folder / "run/server"}"
        """
    )
    return "run.toml"


def test_a_deployed_federation_outlives_one_of_its_nodes(deployment: Deployment) -> None:
    """Two registered nodes train a round over TLS; one is killed, the other finishes alone.

    The other one keeps the finished adapter, and ends when its key is revoked. A node whose key was
    never registered is refused, and so are a caller without the authority's
    certificate and commands from another machine. What the nodes know of their data is nowhere in
    what the SuperLink wrote.
    """
    folder = deployment.folder
    deployment.start_link()
    command = f"https://127.0.0.1:{deployment.port}/v1/control/start-run"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.post(command)
    authority = ssl.create_default_context(cafile=folder / "ca.crt")
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}
    assert httpx.post(command, headers=elsewhere, verify=authority).status_code == 403
    deployment.register("north", "south")
    write_node_key(folder / "stranger.key")
    wants = {"final-adapter": str(folder / "kept")}
    north, south, stranger = (
        deployment.start_node(name, settings(folder, name, seed) | wants)
        for seed, name in enumerate(("north", "south", "stranger"))
    )
    deployment.flower("run", str(APP), "link", "--run-config", run_config(folder))

    state = folder / "run/server/state.json"
    deployment.wait("a round is kept", lambda: len(history_in(state).rounds) == 1)
    kill(south)
    deployment.wait("results", lambda: (folder / "run/server/rounds.yaml").exists())

    first, second = history_in(state).rounds
    assert (sorted(first.survivors), first.failed) == (["north", "south"], {})
    assert (sorted(second.asked), second.survivors) == (["north", "south"], ("north",))
    assert "Node Unavailable" in second.failed["south"]
    spent = read_ledger(path=folder / "run/north/ledger.jsonl")
    assert len(spent.releases) == 6
    assert second.books["north"].epsilon <= 20.0
    assert len(read_ledger(path=folder / "run/south/ledger.jsonl").releases) >= 3
    assert (folder / "run/server/adapter/adapter_model.safetensors").exists()

    assert not alive(stranger)
    assert "Failed to activate SuperNode" in (folder / "stranger.log").read_text()
    assert not (folder / "run/stranger").exists()
    kept, published = folder / "kept", folder / "run/server/adapter"
    deployment.wait("the adapter is at the node", kept.exists)
    weights = "adapter_model.safetensors"
    assert (kept / weights).read_bytes() == (published / weights).read_bytes()

    assert alive(north)
    number = history_in(state).nodes["north"]
    deployment.flower("supernode", "unregister", str(number), "link")
    deployment.wait("a node without a registered key ends", lambda: not alive(north))
    told = (folder / "link.log").read_text()
    assert "PushMessages" in told
    assert not any(word in told for word in ("north.jsonl", "film"))


def alive(program: psutil.Process) -> bool:
    return program.is_running() and program.status() != psutil.STATUS_ZOMBIE
