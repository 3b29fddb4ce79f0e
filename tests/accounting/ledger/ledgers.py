"""The plan that ledgers of these tests are opened with, and a few charges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpacc_accounting import Gaussian, Ledger, PoissonSampled

PLAN: dict[str, Any] = {
    "dataset_size": 10_000,
    "expected_batch_size": 100,
    "steps": 50,
    "noise_multiplier": 0.8,
    "max_grad_norm": 0.5,
    "target_epsilon": 2.0,
    "target_delta": 1e-5,
    "unit": "example",
    "adjacency": "add-or-remove",
    "sampling": "poisson",
    "clipping": "flat",
}
STEP = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=0.8))
LOUD = Gaussian(noise_multiplier=9.0)


def three_charges(folder: Path) -> Path:
    """A ledger of three charges and a note between them."""
    path = folder / "ledger.jsonl"
    with Ledger.open(path=path, plan=PLAN) as ledger:
        ledger.charge(step=1, event=STEP)
        ledger.charge(step=2, event=STEP)
        ledger.note(subject="checkpoint", text="saved, then resumed")
        ledger.charge(step=3, event=LOUD)
    return path
