"""Build the images, and train a tiny federation between them over TLS, one client of which dies.

    python benchmarks/containers.py --base python:3.11-slim-bookworm
    python benchmarks/containers.py --built --compose "docker compose"

Needs podman or docker. Every container has a read-only root, no capability and user 10001. Two
clients train; after the first round one is killed for good, and the other finishes alone. Ends with
1 where an image is not what docs/deployment.md says, or the federation does not finish. The second
line brings up deploy/compose.yaml instead, from a copy beside keys of its own.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpacc.federated.server.history import history_in  # noqa: E402
from tests.tiny_models import save_tiny_llama  # noqa: E402

USER = 10001
TARGETS = ("train", "federation-server", "federation-client")
CLIENTS = ("north", "south")
WORDS = ["the", "film", "was", "dull", "but", "its", "music", "and", "every", "face", "a", "joy"]
_PATIENCE = 1800.0
_CONFIG = '[superlink.federation]\naddress = "127.0.0.1:8443"\nroot-certificates = "/keys/ca.crt"\n'
_RUN = """\
model = "/models/tiny"
num-clients = 2
rounds = 3
epsilon = 8.0
delta = 1e-3
round-timeout = 600.0
folder = "/srv/dpacc/run"
"""
_CLIENT = """\
client-id = "{name}"
data-path = "/keys/texts.jsonl"
folder = "/srv/dpacc/ledger"
model = "/models/tiny"
task = "causal-lm"
max-length = 16
epsilon = 8.0
delta = 1e-3
expected-batch-size = 8
most-rounds = 3
"""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine's command, or compose's, and the folder with all that containers get."""

    command: tuple[str, ...]
    folder: Path
    exec_options: tuple[str, ...] = ()

    def call(self, *arguments: str) -> str:
        """What one command prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join([*self.command, *arguments])
            raise RuntimeError(f"{said}\n{done.stdout}{done.stderr}")
        return done.stdout

    def inside(self, name: str, *arguments: str) -> str:
        """What a command prints in a container that runs; `RuntimeError` where it failed."""
        return self.call("exec", *self.exec_options, name, *arguments)

    def start(self, name: str, image: str, *mounts: tuple[str, str]) -> None:
        """One container as compose.yaml would start it; `mounts` are folders and where they go."""
        volumes = [
            word
            for source, place in mounts
            for word in ("--volume", f"{self.folder / source}:{place}")
        ]
        self.call(
            *("run", "--detach", "--name", name, "--network", "dpacc-try", "--network-alias", name),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", *volumes, f"dpacc-{image}"),
        )


@click.command(help=__doc__)
@click.option("--engine", default="podman", show_default=True)
@click.option("--base", default="python:3.11-slim-bookworm", show_default=True)
@click.option("--build", multiple=True, help="More words for the engine's build command.")
@click.option("--target", "targets", multiple=True, default=TARGETS, help="Which are built.")
@click.option("--built", is_flag=True, help="The images are there already.")
@click.option("--compose", help="Start what deploy/compose.yaml says, by this command.")
def main(
    engine: str,
    base: str,
    build: tuple[str, ...],
    targets: tuple[str, ...],
    built: bool,
    compose: str | None,
) -> None:
    """Build, look, federate."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        podman = Engine(command=(engine,), folder=folder)
        for target in () if built else targets:
            build_target(podman, target, base, build)
        folder.chmod(0o711)
        make_material(folder / "federation")
        if compose:
            by_compose(shlex.split(compose), folder)
        else:
            by_hand(podman)


def by_hand(engine: Engine) -> None:
    """Each container started by itself, in a network of their own."""
    engine.call("network", "create", "dpacc-try")
    models = ("federation/models", "/models:ro")
    try:
        engine.start(
            "server",
            "federation-server",
            *(("federation/server", "/keys:ro"), ("federation/registered", "/registered:ro")),
            *(models, ("server", "/srv/dpacc"), ("federation/flower", "/srv/dpacc/flwr")),
        )
        register(engine)
        for name in CLIENTS:
            keys = (f"federation/{name}", "/keys:ro")
            engine.start(name, "federation-client", keys, models, (name, "/srv/dpacc"))
        federate(engine)
    finally:
        for name in ("server", *CLIENTS):
            subprocess.run([*engine.command, "rm", "--force", name], check=False)
        engine.call("network", "rm", "dpacc-try")


def by_compose(command: Sequence[str], folder: Path) -> None:
    """deploy/compose.yaml as it is: clients come up before they are registered."""
    file = shutil.copy(ROOT / "deploy/compose.yaml", folder)
    engine = Engine(
        command=(*command, "--project-name", "dpacc-try", "--file", file),
        folder=folder,
        exec_options=("-T",),
    )
    try:
        engine.call("up", "--detach", "--no-build")
        register(engine)
        federate(engine)
    finally:
        subprocess.run([*engine.command, "down", "--volumes"], check=False)


def build_target(engine: Engine, target: str, base: str, more: Sequence[str]) -> None:
    """Build one target; say how large it is; see whose it is and that no source is in it."""
    engine.call(
        *("build", "--file", str(ROOT / "deploy/Dockerfile"), "--build-arg", f"BASE={base}", *more),
        *("--target", target, "--tag", f"dpacc-{target}", str(ROOT)),
    )
    (facts,) = json.loads(engine.call("image", "inspect", f"dpacc-{target}"))
    require(facts["Config"]["User"] == f"{USER}:{USER}", f"{target} runs as {USER}")
    history = engine.call("history", "--no-trunc", f"dpacc-{target}")
    require("PRIVATE KEY" not in history, f"{target} has no key in its layers")
    found = engine.call(
        *("run", "--rm", "--read-only", "--network", "none", "--entrypoint", "python"),
        *(
            f"dpacc-{target}",
            "-c",
            "import dpacc, os; print(os.getuid(), os.path.exists('/source'))",
        ),
    )
    require(found.split() == [str(USER), "False"], f"{target} starts without writing its root")
    click.echo(f"{target}: {facts['Size'] / 1e6:,.0f} MB")


def make_material(folder: Path) -> None:
    """Keys, a tiny model, texts and settings, which the containers' user may read."""
    keys = [str(ROOT / "deploy/make_keys.sh"), str(folder), "server", *CLIENTS]
    subprocess.run(keys, check=True, capture_output=True)
    save_tiny_llama(folder / "models/tiny", words=WORDS)
    (folder / "registered/run.toml").write_text(_RUN)
    (folder / "flower").mkdir()
    (folder / "flower/config.toml").write_text(_CONFIG)
    for name in ("server", *CLIENTS):
        (folder.parent / name).mkdir()
    for name in CLIENTS:
        (folder / name / "client.toml").write_text(_CLIENT.format(name=name))
        rows = (" ".join(WORDS[i % 7 : i % 7 + 3 + i % 5]) for i in range(40))
        texts = "".join(f"{json.dumps({'text': row})}\n" for row in rows)
        (folder / name / "texts.jsonl").write_text(texts)
    folder.chmod(0o711)
    for path in folder.parent.rglob("*"):
        if path.name != "ca.key":
            shutil.chown(path, USER, USER)


def register(engine: Engine) -> None:
    """Once the server answers, it is told whose keys it may believe."""
    healthy = ("exec", *engine.exec_options, "server", "python", "/opt/health.py")
    wait("the server is healthy", lambda: succeeds(engine, *healthy, "8443", "/keys/ca.crt"))
    for name in CLIENTS:
        key = f"/registered/{name}.pub"
        engine.inside("server", "flwr", "supernode", "register", key, "federation")


def federate(engine: Engine) -> None:
    """Three rounds; one client dies after the first."""
    engine.inside(
        *("server", "flwr", "run", "/opt/federation", "federation"),
        *("--run-config", "/registered/run.toml"),
    )
    wait("a round is over", lambda: kept(engine, "state.json")["rounds"]["lines"] >= 1)
    engine.call("kill", "south")
    click.echo("south was killed after the first round")
    wait("the run is over", lambda: "rounds" in kept(engine, "history.json"))
    for each in history_in(kept(engine, "history.json"), rounds=Path()).rounds:
        click.echo(f"round {each.number}: {each.survivors}, failed {sorted(each.failed)}")
    left = engine.inside("server", "ls", "/srv/dpacc/run", "/srv/dpacc/run/adapter").split()
    require("rounds.yaml" in left, "what was done can be composed")
    require("adapter_model.safetensors" in left, "the adapter is there")
    require("README.md" in left, "and its card")


def kept(engine: Engine, file: str) -> dict[str, Any]:
    """What the server has written of its run; nothing of rounds where the file is not there yet."""
    path = f"/srv/dpacc/run/{file}"
    if not succeeds(engine, "exec", *engine.exec_options, "server", "ls", path):
        return {"rounds": {"lines": 0}} if file == "state.json" else {}
    return dict(json.loads(engine.inside("server", "cat", path)))


def succeeds(engine: Engine, *arguments: str) -> bool:
    """Whether a command of the engine ends well."""
    done = subprocess.run([*engine.command, *arguments], capture_output=True, check=False)
    return done.returncode == 0


def wait(what: str, holds: Callable[[], bool]) -> None:
    """Until `what` holds; this is a script, run by hand, and may look at the clock."""
    ends = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > ends:
            require(False, what)
        time.sleep(1)
    require(True, what)


def require(holds: bool, what: str) -> None:
    """Say what is so, or end with 1."""
    click.echo(f"{'ok' if holds else 'NOT SO'}: {what}")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
