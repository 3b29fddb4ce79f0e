"""The shipped app with 10, 100 and 1,000 nodes: Flower's simulation beside the in-process grid.

    pip install 'flwr[simulation]'      # brings Ray
    python benchmarks/simulation.py --nodes 10 100
    python benchmarks/simulation.py --nodes 1000 --sampled 0.1

Every node has 12 texts, a ledger and an ε of its own, and trains a small random Llama's adapter
with noise; 24,576 numbers travel. "flower": a SuperLink simulates the nodes on one of Ray's
processes, as docs/federation_operations.md starts it, and `flwr run` sends it recipes/federation.
"grid": the same two halves of the app answer each other in one process. Memory is the peak of the
process in which the server's app runs (in "grid" it is the clients', too), and the peak of all
together; seconds are by the clock and of processors, from the first program's start to the last
round's end, everything counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
APP = ROOT / "recipes/federation"
PROGRAMS = Path(sys.executable).parent
WORDS = ["the", "film", "was", "good", "bad", "long", "short", "fine", "dull", "loud", "warm"]
TEXTS, EPSILON, DELTA = 12, 8.0, 1e-3
_PAUSE = 5.0
_NODE = """\
client-id = "site-{{partition}}"
data-path = "{folder}/said-{{partition}}.jsonl"
folder = "{folder}/sites/{{partition}}"
model = "{folder}/model"
task = "causal-lm"
max-length = 16
epsilon = {epsilon}
delta = {delta}
expected-batch-size = 6
most-rounds = {rounds}
"""
_LINK = """\
[superlink]
default = "link"
[superlink.link]
address = "127.0.0.1:{port}"
insecure = true
options.num-supernodes = {nodes}
options.backend.client-resources.num-cpus = 1
options.backend.init-args.num-cpus = 1
"""


@dataclass(kw_only=True)
class Taken:
    """What a run took.

    Args:
        together: all processes' peak memory, MB, what they share counted once.
        of_server: that of the process in which the server's app runs.
        seconds: of processors, by process.
    """

    together: float = 0.0
    of_server: float = 0.0
    seconds: dict[int, float] = field(default_factory=dict)

    def look(self, program: psutil.Process) -> None:
        """Take down what a program and all that it started hold now."""
        held = 0.0
        for each in [program, *program.children(recursive=True)]:
            try:
                held += each.memory_full_info().pss / 2**20
                spent = each.cpu_times()
                self.seconds[each.pid] = spent.user + spent.system
                if "flwr-simulation" in " ".join(each.cmdline()):
                    self.of_server = max(self.of_server, _peak(each.pid))
            except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                continue
        self.together = max(self.together, held)


def _peak(pid: int) -> float:
    told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(told[1]) / 1024 if told else 0.0


def write_federation(folder: Path, *, nodes: int, rounds: int) -> None:
    """The model, each node's texts, and one file of settings for all."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.tiny_models import LLAMA_LIKE, tiny_tokenizer

    tiny_tokenizer(WORDS).save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(**{**LLAMA_LIKE, "hidden_size": 256, "intermediate_size": 512})
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(
        folder / "model"
    )
    draw = random.Random(0)
    for number in range(nodes):
        said = [json.dumps({"text": " ".join(draw.choices(WORDS, k=8))}) for _ in range(TEXTS)]
        (folder / f"said-{number}.jsonl").write_text("\n".join(said))
    settings = {"folder": folder, "epsilon": EPSILON, "delta": DELTA, "rounds": rounds}
    (folder / "node.toml").write_text(_NODE.format(**settings))


def run_config(folder: Path, *, nodes: int, rounds: int, sampled: float) -> dict[str, Any]:
    """What the run's operator writes."""
    return {
        "model": str(folder / "model"),
        "num-clients": nodes,
        "rounds": rounds,
        "epsilon": EPSILON,
        "delta": DELTA,
        "client-sampling-rate": sampled,
        "lora-rank": 32,
        "lora-target-modules": "q_proj,v_proj",
        "folder": str(folder / "server"),
        "simulated-node": str(folder / "node.toml"),
    }


def in_one_process(nodes: int, config: Mapping[str, Any]) -> None:
    """All rounds between the shipped app's two halves, here."""
    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp import ClientApp

    from dpacc.federated.deployment.flower_config import read_config
    from dpacc.federated.deployment.run_settings import RunSettings
    from dpacc.federated.deployment.server_run import run_server
    from dpacc.federated.server.in_process_grid import LocalGrid

    shipped = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    whole, app = shipped | config, _client_app()

    class Numbered(LocalGrid):
        """Tells each node its number, as a simulation does."""

        def _ask(self, node: int, message: Message) -> Message:
            told = {"partition-id": node - 1, "num-partitions": nodes}
            return app(message, Context(1, node, told, RecordDict(), whole))

    grid = Numbered({number: ClientApp() for number in range(1, nodes + 1)})
    context = Context(1, 0, {}, RecordDict(), whole)
    run_server(read_config(RunSettings, whole), grid=grid, context=context)


def _client_app() -> Any:
    found = spec_from_file_location("client_app", APP / "client_app.py")
    assert found
    assert found.loader
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module.app


def grid(folder: Path, *, nodes: int, config: Mapping[str, Any]) -> Taken:
    """The in-process grid, in a process of its own."""
    (folder / "run.json").write_text(json.dumps(config))
    words = [sys.executable, __file__, "--here", str(folder / "run.json"), "--nodes", str(nodes)]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(words, stdout=log, stderr=log)
        _, _, usage = os.wait4(started.pid, 0)
    held, spent = usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
    return Taken(together=held, of_server=held, seconds={started.pid: spent})


def flower(folder: Path, *, nodes: int, config: Mapping[str, Any]) -> Taken:
    """Flower's simulation, by its own programs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "home").mkdir()
    (folder / "home/config.toml").write_text(_LINK.format(port=port, nodes=nodes))
    (folder / "run.toml").write_text(
        "\n".join(f"{name} = {json.dumps(value)}" for name, value in config.items())
    )
    paths = os.pathsep.join(each for each in sys.path if each)
    place = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    told = {"FLWR_HOME": str(folder / "home"), "PYTHONPATH": paths, "PATH": place}
    # Ray would let its workers wait for everybody else.
    environment = os.environ | told | {"RAY_worker_niceness": "0"}
    link = ("flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1")
    link += ("--port", f"{port}", "--disable-runtime-dependency-installation")
    with (folder / "log").open("wb") as log:
        kept: dict[str, Any] = {"stdout": log, "stderr": log, "env": environment, "cwd": folder}
        superlink, taken = psutil.Process(subprocess.Popen(link, **kept).pid), Taken()
        try:
            while not _listens(port):
                time.sleep(0.5)
            words = ["flwr", "run", str(APP), "link", "--run-config", "run.toml", "--stream"]
            run = subprocess.Popen(words, **kept)
            while run.poll() is None and not (folder / "server/history.json").exists():
                taken.look(superlink)
                time.sleep(_PAUSE)
            taken.look(superlink)
        finally:
            family = [superlink, *superlink.children(recursive=True)]
            for each in family:
                each.terminate()
            for each in psutil.wait_procs(family, timeout=20)[1]:
                each.kill()
            run.terminate()
    return taken


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


ENGINES = {"grid": grid, "flower": flower}


def measured(engine: str, *, nodes: int, rounds: int, sampled: float) -> list[str]:
    """A row of the table; it is checked that whoever was asked has answered."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        write_federation(folder, nodes=nodes, rounds=rounds)
        config = run_config(folder, nodes=nodes, rounds=rounds, sampled=sampled)
        begun = time.monotonic()
        taken = ENGINES[engine](folder, nodes=nodes, config=config)
        seconds = time.monotonic() - begun
        try:
            told = json.loads((folder / "server/history.json").read_text())["rounds"]
        except OSError:
            sys.exit((folder / "log").read_text()[-4000:])
        asked, answered = (sum(len(each[n]) for each in told) for n in ("asked", "survivors"))
        spent = sum(taken.seconds.values())
        row = [engine, f"{nodes}", f"{rounds}", f"{asked}", f"{answered}"]
        row += [f"{taken.of_server:.0f}", f"{taken.together:.0f}"]
        return [*row, f"{seconds:.0f}", f"{spent:.0f}", f"{spent / asked:.2f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--engines", nargs="+", default=[*ENGINES], choices=[*ENGINES])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sampled", type=float, default=1.0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    own = parser.parse_args()
    if own.here:
        in_one_process(own.nodes[0], json.loads(own.here.read_text()))
        return
    head = ["engine", "nodes", "rounds", "asked", "answered", "server MB", "all MB", "s", "CPU s"]
    print(" | ".join([*head, "CPU s an answer"]))
    for nodes in own.nodes:
        for engine in own.engines:
            row = measured(engine, nodes=nodes, rounds=own.rounds, sampled=own.sampled)
            print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
