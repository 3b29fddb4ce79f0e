"""Build the images, and train a tiny federation between them over TLS, one client of which dies.

    python benchmarks/containers.py --base python:3.11-slim-bookworm

Needs podman or docker. Every container has a read-only root, no capability and user 10001. Two
clients train; after the first round one is killed for good, and the other finishes alone. Ends with
1 where an image is not what docs/deployment.md says, or the federation does not finish.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpacc.federated.server.history import read_history  # noqa: E402
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
round-timeout = 120.0
folder = "/srv/dpacc/run"
"""
_CLIENT = """\
client-id = "{name}"
data-path = "/data/texts.jsonl"
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
    """A container engine's command, and the folder with everything that containers are given."""

    command: str
    folder: Path

    def call(self, *arguments: str) -> str:
        """What one command prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [self.command, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.command} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

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
def main(
    engine: str, base: str, build: tuple[str, ...], targets: tuple[str, ...], built: bool
) -> None:
    """Build, look, federate."""
    with tempfile.TemporaryDirectory() as folder:
        podman = Engine(command=engine, folder=Path(folder))
        for target in () if built else targets:
            build_target(podman, target, base, build)
        make_material(podman.folder)
        try:
            federate(podman)
        finally:
            for name in ("server", *CLIENTS):
                subprocess.run([engine, "rm", "--force", name], capture_output=True, check=False)
            subprocess.run([engine, "network", "rm", "dpacc-try"], capture_output=True, check=False)


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
    for place in ("server-state", *(f"{name}-state" for name in CLIENTS)):
        (folder / place).mkdir()
    for name in CLIENTS:
        (folder / name / "client.toml").write_text(_CLIENT.format(name=name))
        (folder / f"{name}-data").mkdir()
        rows = (" ".join(WORDS[i % 7 : i % 7 + 3 + i % 5]) for i in range(40))
        texts = "".join(f"{json.dumps({'text': row})}\n" for row in rows)
        (folder / f"{name}-data/texts.jsonl").write_text(texts)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.chown(path, USER, USER)
            for inner in path.rglob("*"):
                shutil.chown(inner, USER, USER)
    folder.chmod(0o711)


def federate(engine: Engine) -> None:
    """Three rounds; one client dies after the first."""
    engine.call("network", "create", "dpacc-try")
    models = ("models", "/models:ro")
    engine.start(
        "server",
        "federation-server",
        *(("server", "/keys:ro"), ("registered", "/registered:ro"), models),
        *(("server-state", "/srv/dpacc"), ("flower", "/srv/dpacc/flwr")),
    )
    healthy = ("exec", "server", "python", "/opt/health.py", "8443", "/keys/ca.crt")
    wait("the server is healthy", lambda: succeeds(engine, *healthy))
    for name in CLIENTS:
        register = ("flwr", "supernode", "register", f"/registered/{name}.pub", "federation")
        engine.call("exec", "server", *register)
        engine.start(
            name,
            "federation-client",
            *((name, "/keys:ro"), models, (f"{name}-data", "/data:ro")),
            (f"{name}-state", "/srv/dpacc"),
        )
    engine.call(
        *("exec", "server", "flwr", "run", "/opt/federation", "federation"),
        *("--run-config", "/registered/run.toml"),
    )
    run = engine.folder / "server-state/run"
    wait("a round is over", lambda: rounds_in(run) >= 1)
    engine.call("kill", "south")
    click.echo("south was killed after the first round")
    wait("the run is over", lambda: (run / "history.json").exists())
    for report in read_history(path=run / "history.json").rounds:
        click.echo(f"round {report.number}: {report.survivors}, failed {sorted(report.failed)}")
    require((run / "rounds.yaml").exists(), "what was done can be composed")
    require((run / "adapter/adapter_model.safetensors").exists(), "the adapter is there")
    require((run / "adapter/README.md").exists(), "and its card")


def rounds_in(run: Path) -> int:
    """How many rounds the server has kept."""
    state = run / "state.json"
    return len(read_history(path=state).rounds) if state.exists() else 0


def succeeds(engine: Engine, *arguments: str) -> bool:
    """Whether a command of the engine ends well."""
    done = subprocess.run([engine.command, *arguments], capture_output=True, check=False)
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
