"""Kill a run at every stage of a step and of a checkpoint, resume it, and compare.

    python benchmarks/kills.py 2>/dev/null

One and two gloo ranks, whole, under FSDP2 and under DeepSpeed ZeRO 1 to 3. Each run gets SIGKILL at
the named call, is started again, and must end with every step charged once and, unless the step
in flight was lost between charge and journal, with the adapters of a run that nobody killed. Exits
with 1 if any does not. About ten minutes on one core; the suite runs a part of it. What the ranks
say as they lose one another goes to stderr.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tests.dpacc.step.kills_program import Kill

ROOT = Path(__file__).parents[1]
BACKENDS = ("plain", "fsdp2", "zero1", "zero2", "zero3")
ROUNDING = 1e-5


def outcome(folder: Path, expected: Path) -> str:
    """How far the resumed run's adapters are from those of one that nobody killed."""
    from dpacc_accounting import read_ledger
    from safetensors.torch import load_file

    from tests.dpacc.step.resume_program import STEPS

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


def killed_and_resumed(kill: Kill, root: Path) -> str:
    """What became of a run that died there."""
    from tests.dpacc.step.kills_program import kill_and_resume

    statuses = kill_and_resume(kill, root / kill.name)
    if not any(statuses["killed"]):
        return "did not die"
    if any(statuses["resumed"]):
        return "did not resume"
    return outcome(root / kill.name, root / "uninterrupted" / "final.safetensors")


@click.command()
@click.option("--ranks", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), multiple=True, default=BACKENDS)
def main(ranks: tuple[int, ...], backend: tuple[str, ...]) -> None:
    """Kill, resume, and print a table of the largest difference of any adapter element."""
    sys.path.insert(0, str(ROOT))
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}  # before torch is imported
    from tests.dpacc.step.kills_program import Kill
    from tests.dpacc.step.resume_program import DEATHS, run
    from tests.forked_ranks import fork_ranks

    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fork_ranks(lambda: run(root / "uninterrupted"), ranks=1)
        print("| killed | " + " | ".join(f"{b} ×{n}" for n in ranks for b in backend) + " |")
        print("|---" * (1 + len(ranks) * len(backend)) + "|", flush=True)
        for place, call, loses in DEATHS:
            cells = []
            for n in ranks:
                for b in backend:
                    if place == "before a rank keeps its part" and not b.startswith("zero"):
                        cells.append("")
                        continue
                    kill = Kill(place=place, call=call, backend=b, ranks=n)
                    cells.append(killed_and_resumed(kill, root))
                    failures += not verdict(cells[-1], loses)
            lost = ", its step lost" if loses else ""
            print(f"| {place} ({call}){lost} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
