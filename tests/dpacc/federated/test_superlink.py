"""From other machines, only registered nodes reach the SuperLink."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.proto.control_pb2 import ListNodesRequest  # type: ignore[import-untyped]
from flwr.proto.fleet_pb2 import PullMessagesRequest  # type: ignore[import-untyped]
from flwr.superlink.main import create_app
from starlette.testclient import TestClient

from dpacc.federated import superlink, supernode
from dpacc.federated.deployment import flower_programs
from dpacc.federated.superlink import NodesOnly, superlink_arguments

PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}


def asked(app: Any, *, host: str, path: str, message: Any) -> int:
    """The status of one request from `host`."""
    caller = TestClient(app, client=(host, 5000))
    return caller.post(path, content=message.SerializeToString(), headers=PROTOBUF).status_code


@pytest.fixture
def link() -> Any:
    return create_app()


def test_without_the_gate_anyone_commands_the_superlink(link: Any) -> None:
    """Flower itself lists, registers and starts for whoever asks: what the gate is for."""
    list_nodes = {"path": "/v1/control/list-nodes", "message": ListNodesRequest()}
    assert asked(link, host="192.0.2.7", **list_nodes) == 200
    assert asked(NodesOnly(link), host="192.0.2.7", **list_nodes) == 403
    assert asked(NodesOnly(link), host="127.0.0.1", **list_nodes) == 200
    assert asked(NodesOnly(link), host="::ffff:127.0.0.1", **list_nodes) == 200
    assert asked(NodesOnly(link), host="::ffff:192.0.2.7", **list_nodes) == 403


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "/v1/fleet",
        "/docs",
    ],
)
def test_nothing_but_the_nodes_door_is_open(link: Any, path: str) -> None:
    """Control, the server's own tasks and pages are refused to other machines."""
    assert asked(NodesOnly(link), host="192.0.2.7", path=path, message=ListNodesRequest()) == 403


def test_a_node_must_sign(link: Any) -> None:
    """The nodes' door answers other machines, and asks them for a registered key's signature."""
    pull = {"path": "/v1/fleet/pull-messages", "message": PullMessagesRequest()}
    assert asked(NodesOnly(link), host="192.0.2.7", **pull) == 401


@pytest.mark.parametrize("host", ["testclient", ""])
def test_a_caller_without_an_address_is_another_machine(link: Any, host: str) -> None:
    """What cannot be placed on this machine is refused."""
    path = "/v1/control/list-nodes"
    assert asked(NodesOnly(link), host=host, path=path, message=ListNodesRequest()) == 403


@pytest.mark.parametrize("argument", ["--insecure", "--insec", "--allow-runtime", "--simulation"])
def test_what_would_open_the_superlink_is_refused(argument: str) -> None:
    """Also when abbreviated, as argparse allows."""
    with pytest.raises(SystemExit, match="would leave the federation open"):
        superlink_arguments(["--port", "9000", argument])


def test_node_authentication_is_always_on() -> None:
    """And an app can install nothing; the port is 8443 unless another is given."""
    assert superlink_arguments(["--host", "::"]) == [
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--port",
        "8443",
        "--host",
        "::",
    ]


def test_a_flower_that_was_not_read_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both guards stand in Flower's inside, so another version might go around them."""
    for start in (superlink.main, supernode.main):
        monkeypatch.setattr(flower_programs, "version", lambda name: "1.43.0")
        with pytest.raises(SystemExit, match=r"flwr 1\.43\.0 was not checked"):
            start()
