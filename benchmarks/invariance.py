"""The same private training under every backend, base, strategy and number of ranks.

    python benchmarks/invariance.py

Prints, for each way to train, the largest difference of any adapter element from one process
without any backend, after four noised steps of SGD at learning rate 1. It must be rounding.
Two gloo ranks on a processor; DeepSpeed compiles a small operation the first time.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORLD_SIZES = (1, 2)
BASES = ("fp32", "NF4")
STRATEGIES = ("materialize", "ghost")
CHECKPOINTING = (False, True)

Results = dict[tuple[str, int], dict[str, Any]]


def main() -> None:
    """Train in every way, in as many processes as it takes, and print the table."""
    if "RANK" in os.environ:
        train_everything(Path(sys.argv[1]))
        return
    import torch

    results: Results = {}
    for world_size in WORLD_SIZES:
        with tempfile.TemporaryDirectory() as folder:
            launch(world_size, Path(folder))
            for backend, outcomes in torch.load(Path(folder, "results.pt")).items():
                results[backend, world_size] = outcomes
    show(results)


def launch(world_size: int, folder: Path) -> None:
    """Start `world_size` ranks of this script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={world_size}", __file__, str(folder)]
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    environment = os.environ | settings
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def train_everything(folder: Path) -> None:
    """What each rank does; the first keeps the results."""
    import torch

    from tests.dpacc.backend_program import BACKENDS, Scenario, train

    results: dict[str, dict[str, Any]] = {}
    for backend in BACKENDS:
        results[backend] = {}
        for base, strategy, checkpointing in itertools.product(BASES, STRATEGIES, CHECKPOINTING):
            scenario = Scenario(
                base=base, per_example_gradients=strategy, checkpointing=checkpointing
            )
            ledger = folder / f"{backend} {scenario.name}.jsonl"
            results[backend][scenario.name] = train(backend, scenario, ledger)
    if os.environ["RANK"] == "0":
        torch.save(results, folder / "results.pt")
    torch.distributed.destroy_process_group()


def show(results: Results) -> None:
    """One row a scenario, one column a backend and number of ranks, in Markdown."""
    reference = results["plain", 1]
    columns = sorted(results, key=lambda key: (key[1], list(results).index(key)))
    titles = [f"{backend} ×{world_size}" for backend, world_size in columns]
    print("| largest difference | " + " | ".join(titles) + " |")
    print("|---" * (len(titles) + 1) + "|")
    for name, expected in reference.items():
        cells = [difference(results[column][name], expected) for column in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def difference(outcome: dict[str, Any], expected: dict[str, Any]) -> str:
    """How far an outcome is from the expected one, or what else is wrong with it."""
    if outcome["still"] or outcome["base changed"]:
        return "adapters stood still" if outcome["still"] else "base changed"
    return f"{float((outcome['adapters'] - expected['adapters']).abs().max()):.1e}"


if __name__ == "__main__":
    main()
