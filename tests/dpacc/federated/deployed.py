"""A deployed federation on this machine: certificates, keys, and Flower's own programs."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dpacc.federated.server.history import History, read_history
from tests.dpacc.federated import warm_programs
from tests.dpacc.federated.warm_programs import shims

ROOT = Path(__file__).parents[3]
APP = ROOT / "recipes/federation"
PROGRAMS = Path(sys.executable).parent
PATIENCE = 1200.0  # a limit on hanging, far beyond what a busy machine needs
_HASTE = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
# A dead node is noticed after twice this many seconds; Flower's own 30 would be most of the test.
_HEARTBEAT = 10
_NODE = f"""
import importlib, time
from types import SimpleNamespace
from flwr.supercore import heartbeat as sent
from flwr.supernode import fleet_http_connection as promised
sent.HEARTBEAT_DEFAULT_INTERVAL = promised.HEARTBEAT_DEFAULT_INTERVAL = {_HEARTBEAT}
# Flower's own 3 seconds between two questions for messages add up.
asking = importlib.import_module("flwr.supernode.start_client_internal")
asking.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.2)))
from dpacc.federated.supernode import main; main()
"""
"""A node's program, which waits less."""
_LINK = "from dpacc.federated.superlink import main; main()"


class Deployment:
    """Programs that share one SuperLink, all of which end with it.

    Args:
        folder: for keys, settings and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._programs: list[psutil.Process] = []
        write_certificates(folder)
        self._warm = folder / "programs"
        door = folder / "door"
        shims(self._warm, at=door)
        self.start("warm", sys.executable, "-P", warm_programs.__file__, str(door))
        self.ends = time.monotonic() + PATIENCE
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "link"\n[superlink.link]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{folder / "ca.crt"}"\n'
        )
        self.wait("torch is loaded", door.exists)

    def start(self, name: str, *arguments: str) -> psutil.Process:
        """Start one program, whose output becomes `name.log`."""
        program, *rest = arguments
        warm = self._warm / program
        with (self.folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                [warm if warm.exists() else program, *rest],
                cwd=self.folder,
                env=self._environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = psutil.Process(started.pid)
        self._programs.append(running)
        return running

    def start_link(self) -> None:
        """The SuperLink, as docs/federation_operations.md starts it."""
        self.start(
            "link",
            *("warm-python", _LINK),
            *("--port", str(self.port)),
            *("--ssl-ca-certfile", "ca.crt"),
            *("--ssl-certfile", "server.crt"),
            *("--ssl-keyfile", "server.key"),
        )
        self.wait("the SuperLink listens", lambda: is_open(self.port))

    def start_node(self, name: str, settings: Mapping[str, Any]) -> psutil.Process:
        """A SuperNode with its own key and settings."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        (self.folder / f"{name}.toml").write_text("\n".join(lines))
        return self.start(
            name,
            *("warm-python", _NODE),
            *("--app", str(APP)),
            *("--superlink", f"127.0.0.1:{self.port}"),
            *("--root-certificates", "ca.crt"),
            *("--auth-supernode-private-key", f"{name}.key"),
            *("--node-config", f"{name}.toml"),
            *("--port", str(free_port())),
        )

    def flower(self, *arguments: str) -> str:
        """What one `flwr` command prints."""
        done = subprocess.run(
            [self._warm / "flwr", *arguments],
            cwd=self.folder,
            env=self._environment("control"),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self, *names: str) -> None:
        """Make nodes' keys, and tell the SuperLink their public halves, all at once."""
        for name in names:
            write_node_key(self.folder / f"{name}.key")
        with ThreadPoolExecutor() as pool:
            done = [
                pool.submit(self.flower, "supernode", "register", f"{name}.key.pub")
                for name in names
            ]
        for each in done:
            each.result()

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for `what`, within the patience of the whole test."""
        while not holds():
            assert time.monotonic() < self.ends, f"waited in vain: {what}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The end of every program's output."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        """End every program, at once."""
        for program in self._programs:
            kill(program)

    def _environment(self, name: str) -> dict[str, str]:
        home = self.folder if name == "control" else self.folder / f"{name}-home"
        return (
            os.environ
            | _HASTE
            | {
                "PATH": os.pathsep.join([str(self._warm), str(PROGRAMS), os.environ["PATH"]]),
                "FLWR_HOME": str(home),
            }
        )


def kill(program: psutil.Process) -> None:
    """A sudden death, of the program and all that it started."""
    try:
        family = [program, *program.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def history_in(state: Path) -> History:
    """What a server has kept so far."""
    if not state.exists():
        return History()
    return read_history(path=state)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_certificates(folder: Path) -> None:
    """An authority, and a server's certificate by it."""
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federation authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    own = _certificate(issuer, issuer, authority).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = _certificate(subject, issuer, server).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(own.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.crt").write_bytes(signed.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(
        server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def write_node_key(path: Path) -> None:
    """What `ssh-keygen -t ecdsa -b 384` writes."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    path.with_name(path.name + ".pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
