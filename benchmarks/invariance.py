"""The same private training under every backend, base, strategy and number of ranks.

    python benchmarks/invariance.py

Prints, for each way to train, the largest difference of any adapter element from one process
without any backend, after four noised steps of SGD at learning rate 1. It must be rounding: the
script exits with 1 if any cell is more, ranks ended with other adapters than one another, an
adapter stood still, or the base changed. The last rows hold discrete noise, which is as exact, and
the 16-bit wire, which rounds what is noised already. "compiled" is no backend, and
blocks that torch makes machine code of.
Two gloo ranks on a processor; DeepSpeed compiles a small operation the first time.
"""

from __future__ import annotations

import itertools
import math
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
ROUNDING = 1e-6
ROUNDING_OF_A_16_BIT_WIRE = 1e-4

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
            seen = [torch.load(Path(folder, f"rank-{rank}.pt")) for rank in range(world_size)]
        for backend in seen[0]:
            results[backend, world_size] = seen[0][backend]
            for name, outcome in seen[0][backend].items():
                others = [rank[backend][name]["adapters"] for rank in seen[1:]]
                outcome["alike"] = all(torch.equal(outcome["adapters"], it) for it in others)
    sys.exit(0 if show(results) else 1)


def launch(world_size: int, folder: Path) -> None:
    """Start `world_size` ranks of this script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={world_size}", __file__, str(folder)]
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    environment = os.environ | settings
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def train_everything(folder: Path) -> None:
    """What each rank does, and keeps."""
    import torch

    from tests.dpacc.ranks.backend_program import BACKENDS, Scenario, train

    ways = itertools.product(BASES, STRATEGIES, CHECKPOINTING)
    scenarios = [
        Scenario(base=base, per_example_gradients=strategy, checkpointing=checkpointing)
        for base, strategy, checkpointing in ways
    ]
    scenarios += [Scenario(noise="discrete_gaussian"), Scenario(wire="bf16")]
    results: dict[str, dict[str, Any]] = {}
    for backend in (*BACKENDS, "compiled"):
        results[backend] = {}
        for scenario in scenarios:
            ledger = folder / f"{backend} {scenario.name}.jsonl"
            results[backend][scenario.name] = train(backend, scenario, ledger)
    torch.save(results, folder / f"rank-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


def show(results: Results) -> bool:
    """One row a scenario, one column a backend and number of ranks, in Markdown; are all alike?"""
    alike = True
    reference = results["plain", 1]
    columns = sorted(results, key=lambda key: (key[1], list(results).index(key)))
    titles = [f"{backend} ×{world_size}" for backend, world_size in columns]
    print("| largest difference | " + " | ".join(titles) + " |")
    print("|---" * (len(titles) + 1) + "|")
    for name, expected in reference.items():
        cells = [difference(results[column][name], expected) for column in columns]
        allowed = ROUNDING_OF_A_16_BIT_WIRE if "wire" in name else ROUNDING
        alike &= all(cell <= allowed for cell in cells)
        print(f"| {name} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |")
    return alike


def difference(outcome: dict[str, Any], expected: dict[str, Any]) -> float:
    """How far an outcome is from the expected one; infinitely, if something else is wrong."""
    if outcome["still"] or outcome["base changed"] or not outcome["alike"]:
        return math.inf
    return float((outcome["adapters"] - expected["adapters"]).abs().max())


if __name__ == "__main__":
    main()
