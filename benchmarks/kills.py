"""Kill a run at every stage of a step and of a checkpoint, resume it, and compare.

    python benchmarks/kills.py

One and two gloo ranks, whole, under FSDP2 and under DeepSpeed ZeRO 1 to 3. Each run dies by itself
without a farewell, is started again, and must end with every step charged once and, unless the step
in flight was lost between charge and journal, with the adapters of a run that nobody killed. Exits
with 1 if any does not. About an hour on one core; the suite runs a part of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
BACKENDS = ("plain", "fsdp2", "zero1", "zero2", "zero3")
ROUNDING = 1e-5


def launch(folder: Path, backend: str, ranks: int, *death: object) -> int:
    """Run the program that trains, or resumes what it finds; its exit status."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", "-m", "tests.dpacc.resume_program"]
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, str(folder), backend, *map(str, death)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        timeout=300,
    ).returncode


def outcome(folder: Path, expected: Path) -> str:
    """How far the resumed run's adapters are from those of one that nobody killed."""
    from dpacc_accounting import read_ledger
    from safetensors.torch import load_file

    from tests.dpacc.resume_program import STEPS

    steps = [release.step for release in read_ledger(path=folder / "ledger.jsonl").releases]
    if steps != list(range(STEPS)):
        return f"charged {steps}"
    found, whole = load_file(folder / "final.safetensors"), load_file(expected)
    worst = max(float((found[name] - whole[name]).abs().max()) for name in whole)
    return f"{worst:.1e}"


def verdict(seen: str, loses: bool) -> bool:
    """Whether a run ended as it should."""
    try:
        return (float(seen) > ROUNDING) is loses
    except ValueError:
        return False


def killed_and_resumed(folder: Path, backend: str, ranks: int, place: str, call: int) -> str:
    """What became of a run that died there."""
    if launch(folder, backend, ranks, place, call) == 0:
        return "did not die"
    if launch(folder, backend, ranks) != 0:
        return "did not resume"
    return outcome(folder, folder.parent / "uninterrupted" / "final.safetensors")


@click.command()
@click.option("--ranks", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), multiple=True, default=BACKENDS)
def main(ranks: tuple[int, ...], backend: tuple[str, ...]) -> None:
    """Kill, resume, and print a table of the largest difference of any adapter element."""
    sys.path.insert(0, str(ROOT))
    from tests.dpacc.resume_program import DEATHS

    failures = 0
    with tempfile.TemporaryDirectory() as root:
        launch(Path(root, "uninterrupted"), "plain", 1)
        print("| killed | " + " | ".join(f"{b} ×{n}" for n in ranks for b in backend) + " |")
        print("|---" * (1 + len(ranks) * len(backend)) + "|")
        for place, call, loses in DEATHS:
            cells = []
            for n in ranks:
                for b in backend:
                    if place == "before a rank keeps its part" and not b.startswith("zero"):
                        cells.append("")
                        continue
                    folder = Path(root, f"{len(cells)} {place} {call}")
                    cells.append(killed_and_resumed(folder, b, n, place, call))
                    failures += not verdict(cells[-1], loses)
            lost = ", its step lost" if loses else ""
            print(f"| {place} ({call}){lost} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
