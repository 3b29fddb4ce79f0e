"""The deployment that docs/federation_operations.md describes is one that Flower accepts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.flower_config import parse_superlink_connection
from flwr.cli.supernode.register import try_load_public_key
from flwr.superlink.cli import flower_superlink
from flwr.supernode.cli import flower_supernode

from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.superlink import superlink_arguments
from dpacc.federated.supernode import supernode_arguments

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/federation_operations.md").read_text()


def commands(program: str) -> list[list[str]]:
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL))
    lines = [shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines()]
    return [words for words in lines if " ".join(words).startswith(program)]


def settings(first: str) -> dict[str, Any]:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(first))
    return tomllib.loads(found)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """What the page's commands make."""
    made = [*commands("openssl"), *commands("ssh-keygen")]
    assert len(made) == 4
    for words in made:
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_the_keys_are_what_flower_wants(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate names its machine and loopback; SuperLink and SuperNode take the files."""
    monkeypatch.chdir(keys)
    signed = x509.load_pem_x509_certificate((keys / "server.crt").read_bytes())
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["link.example.org", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]

    (words,) = commands("python -m dpacc.federated.superlink")
    monkeypatch.setenv("FLWR_HOME", str(keys))
    monkeypatch.setattr(sys, "argv", ["link", *superlink_arguments(words[3:])])
    link = sys.modules[flower_superlink.__module__]._parse_superlink_lifespan_config()
    assert (link.port, link.enable_supernode_auth, link.insecure) == (8443, True, False)
    assert link.runtime_dependency_install is False

    (words,) = commands("python -m dpacc.federated.supernode")
    (keys / "north.toml").write_text('client-id = "north"')
    folder, rest = supernode_arguments(words[3:])
    assert (ROOT / folder / "client_app.py").exists()
    monkeypatch.setattr(sys, "argv", ["node", *rest])
    node = sys.modules[flower_supernode.__module__]._parse_supernode_lifespan_config()
    assert node.server_address == "link.example.org:8443"
    assert node.authentication_keys is not None
    assert isinstance(node.authentication_keys[0], ec.EllipticCurvePrivateKey)
    assert node.node_config == {"client-id": "north"}


def test_the_public_key_can_be_registered(keys: Path) -> None:
    """`flwr supernode register` accepts it, and knows the connection that the page names."""
    (words,) = commands("flwr supernode register")
    assert try_load_public_key(keys / words[3])
    connection = parse_superlink_connection(
        settings("[superlink.")["superlink"][words[4]], words[4]
    )
    assert (connection.address, connection.insecure) == ("127.0.0.1:8443", False)


def test_every_setting_on_the_page_is_known() -> None:
    """The node's file is whole, and the run's overrides what the shipped app names."""
    assert read_config(NodeSettings, settings("# north.toml")).privacy.most_rounds == 5
    added = settings("# north.toml") | settings("phase = 2")
    assert (read_config(NodeSettings, added).phase, added["epsilon"]) == (2, 4.5)
    simulated = settings("# node.toml")
    assert read_config(NodeSettings, simulated).most_rounds == 5
    numbered = {name for name, value in simulated.items() if "{partition}" in str(value)}
    assert numbered == {"client-id", "data-path", "folder"}
    project = tomllib.loads((ROOT / "recipes/federation/pyproject.toml").read_text())
    shipped = project["tool"]["flwr"]["app"]["config"]
    overrides = settings("# run.toml")
    assert set(overrides) <= set(shipped)
    assert read_config(RunSettings, shipped | overrides).num_clients == 2
    (words,) = commands("flwr run")
    assert (ROOT / words[2] / "pyproject.toml").exists()


def test_every_setting_of_a_node_is_on_the_page() -> None:
    """In its file or in the table beside it: none has to be looked for in the source."""
    names = {field.name.replace("_", "-") for field in fields(NodeSettings)}
    assert {name for name in names if f"`{name}" not in PAGE and f"{name} = " not in PAGE} == set()
