"""The images, their compose file and their keys: what can be seen without building them.

`benchmarks/containers.py` builds and runs them.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from dpacc.federated.superlink import superlink_arguments
from tests.dpacc.federated.deployed import write_certificates
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES = COMPOSE["services"]
_BASES = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile."""
    return DOCKERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def test_what_is_published_is_built_on_the_unprivileged_stage() -> None:
    """No target has a compiler or the source, and none sets another user."""
    parents = {name: parent for parent, name in _BASES}
    for target in ("train", "federation-server", "federation-client"):
        chain = [target]
        while parents[chain[-1]] in parents:
            chain.append(parents[chain[-1]])
        assert chain[-1] == "runtime"
        assert not [each for each in chain[:-1] if "USER" in stage(each)]
    assert "USER 10001:10001" in stage("runtime")


def test_every_install_honours_the_tested_versions() -> None:
    """Each `pip install` names constraints.txt; nothing is copied whole, or fetched."""
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    assert not [words for words in copied if "." in words]
    assert not re.search(r"^ADD |curl|wget", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_there_and_sent() -> None:
    """The list of what the build sees names all that is copied, and data, runs and keys are out."""
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    own = [
        line
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
    ]
    for line in own:
        for source in line.split()[1:-1]:
            assert (ROOT / source).exists()
            assert {source, source.split("/")[0]} & sent, source
    assert all((ROOT / path).exists() for path in sent)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    """A root that is read only, no capability, and keys that cannot be written."""
    service: dict[str, Any] = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert f" AS {service['build']['target']}\n" in DOCKERFILE
    assert service["image"] == f"dpacc-{service['build']['target']}"
    keys = [mount for mount in service["volumes"] if ":/keys" in mount]
    assert len(keys) == 1
    assert keys[0].endswith(":ro")


def test_clients_reach_the_server_alone_and_keep_their_ledgers() -> None:
    """Their network has no way out, and each writes to a volume of its own."""
    assert COMPOSE["networks"]["federation"] == {"internal": True}
    clients = [each for each in SERVICES if each != "server"]
    for name in clients:
        assert SERVICES[name]["networks"] == ["federation"]
        assert "ports" not in SERVICES[name]
        assert f"{name}:/srv/dpacc" in SERVICES[name]["volumes"]
    assert SERVICES["server"]["ports"] == ["8443:8443"]
    assert {*COMPOSE["volumes"]} == {*SERVICES}


def test_the_servers_command_is_one_that_the_program_takes() -> None:
    """Keys from /keys, on all addresses; TLS and registered keys come before it."""
    command = re.search(r"^CMD \[(.*?)\]$", stage("federation-server"), re.MULTILINE | re.DOTALL)
    assert command is not None
    words = re.findall(r'"([^"]+)"', command[1])
    given = superlink_arguments(words)
    assert given[:2] == ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    assert "/keys/server.key" in given


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes for one server and two clients."""
    if not (shutil.which("openssl") and shutil.which("ssh-keygen")):
        pytest.skip("openssl or ssh-keygen is not installed")
    folder = tmp_path_factory.mktemp("keys")
    script = ROOT / "deploy/make_keys.sh"
    done = subprocess.run(
        ["bash", script, folder / "federation", "link.example.org", "north", "south"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "federation"


def test_keys_are_their_owners_alone_and_of_the_kind_that_flower_wants(keys: Path) -> None:
    """P-384, each with its public half for the server; nobody has the authority's or another's."""
    for name in ("north", "south"):
        private = load_ssh_private_key((keys / name / "client.key").read_bytes(), password=None)
        public = load_ssh_public_key((keys / f"registered/{name}.pub").read_bytes())
        assert private.curve.name == "secp384r1"  # type: ignore[union-attr]
        assert private.public_key() == public
        assert {path.name for path in (keys / name).iterdir()} == {"client.key", "ca.crt"}
    assert {path.name for path in (keys / "server").iterdir()} == {
        *("ca.crt", "server.crt", "server.key"),
    }
    assert not [path for path in keys.rglob("*") if path.stat().st_mode & 0o077]


def test_a_container_is_healthy_if_its_certificate_is_the_authoritys(
    keys: Path, tmp_path: Path
) -> None:
    """Through TLS, by the certificate's own machine; a stranger's server or none is unhealthy."""
    health = load_script(ROOT / "deploy/health.py")
    certificate = x509.load_pem_x509_certificate((keys / "server/server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["link.example.org", "localhost"]
    write_certificates(tmp_path)
    ours, authority = keys / "server", str(keys / "server/ca.crt")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with _greeting(listening, folder=ours):
            health.main(port, authority)
        with _greeting(listening, folder=tmp_path), pytest.raises(ssl.SSLCertVerificationError):
            health.main(port, authority)
    with pytest.raises(ConnectionRefusedError):
        health.main(port, None)


@contextmanager
def _greeting(listening: socket.socket, *, folder: Path) -> Iterator[None]:
    """A server that shakes one hand by the certificate in `folder`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")

    def greet() -> None:
        connection, _ = listening.accept()
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True):
            pass

    answering = threading.Thread(target=greet, daemon=True)
    answering.start()
    yield
    answering.join()
