"""docs/frontier.md and the kept results that it tells of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/frontier.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks/results/frontier.jsonl"
GEOMETRY = ROOT / "benchmarks/results/gradient_geometry.jsonl"


def kept_in(results: Path) -> list[dict[str, Any]]:
    """The results of a file, one a line."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def section_of(heading: str) -> str:
    """What stands below a heading that begins so, up to the next of its kind."""
    return PAGE.split(heading)[1].split("\n## ")[0]


def per_block(runs: list[dict[str, Any]]) -> np.ndarray:
    """The share of right answers in each block, over seeds."""
    blocks = np.array([run["blocks"] for run in runs])
    return np.asarray((blocks[..., 0] / blocks[..., 1]).mean(axis=0))
