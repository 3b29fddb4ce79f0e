"""A measurement on GPUs that ends in time, and goes on where it stopped when it is called again."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATHS = [str(ROOT), str(ROOT / "accounting/src"), str(ROOT / "benchmarks")]
NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "accelerate": "accelerate",
    "bitsandbytes": "bitsandbytes",
    "cryptography": "cryptography",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "click": "click",
    "yaml": "pyyaml",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
"""Modules, and the packages that bring them."""

Row = dict[str, Any]


def begin(about: str, *, out: str, rehearsed: str) -> tuple[argparse.Namespace, float]:
    """The command line, and when to have ended; what is measured can be imported from then on.

    Args:
        about: what the script says of itself.
        out: folder of the results.
        rehearsed: what `--rehearse` measures.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=480.0, help="end before that [480]")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder [{out}]")
    parser.add_argument("--rehearse", action="store_true", help=rehearsed)
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.seconds
    lacking = missing()
    if lacking:
        sys.exit(f"error: not installed here: pip install {' '.join(lacking)}")
    sys.path[:0] = PATHS
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
    return asked, deadline


def missing() -> list[str]:
    """Packages that are not installed."""
    return [package for name, package in NEEDED.items() if not importlib.util.find_spec(name)]


class Results:
    """Rows by cell, on disk as soon as they are there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "cells.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def has(self, cell: Row) -> bool:
        """Whether it was measured, or does not fit; what failed otherwise is tried again."""
        known = [row for row in self.rows if row["cell"] == cell]
        return any(row.get("failed", "out of memory") == "out of memory" for row in known)

    def keep(self, cell: Row, row: Row) -> None:
        """Write one down."""
        self.rows.append({"cell": cell, **row})
        with self._path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def say_what_is_left(self, planned: Sequence[Row]) -> None:
        """How many cells are not known yet, if any."""
        undone = sum(not self.has(cell) for cell in planned)
        if undone:
            print(f"{undone} of {len(planned)} cells are left: the same command goes on with them")
