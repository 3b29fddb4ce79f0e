"""docs/frontier.md and the kept results that it tells of."""

from __future__ import annotations

import json
import math
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


def lead(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float]:
    """How much more a block of texts has in one tool's runs, over seeds, than in another's; and
    its standard error over blocks. In hundredths: points of accuracy, percent of perplexity."""
    gain = 100 * (_per_block(ours) - _per_block(theirs))
    return float(gain.mean()), float(gain.std(ddof=1)) / math.sqrt(len(gain))


def _per_block(runs: list[dict[str, Any]]) -> np.ndarray:
    blocks = np.array([run["blocks"] for run in runs])
    return np.asarray((blocks[..., 0] / blocks[..., 1]).mean(axis=0))
