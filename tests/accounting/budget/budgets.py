"""A data set's budget with room for two runs, and runs that ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpacc_accounting import (
    Budget,
    Composed,
    Event,
    Gaussian,
    Ledger,
    PoissonSampled,
    Repeated,
    create_budget,
    epsilon,
)

DELTA = 1e-5
STEPS = 3
PLAN: dict[str, Any] = {
    "steps": STEPS,
    "unit": "example",
    "adjacency": "add-or-remove",
    "target_delta": DELTA,
}
STEP = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=1.0))
PLANNED = Repeated(event=STEP, times=STEPS)
ROWS = '{"text": "Ann has the flu"}\n{"text": "Bob has not"}\n'


def cost(*events: Event) -> float:
    """ε of all of them together."""
    return epsilon(event=Composed(events=events), delta=DELTA).epsilon


def budget_in(folder: Path, *, runs: int = 2, **settings: Any) -> Budget:
    """A budget of just enough ε for so many runs, its data and its key beside it."""
    data = folder / "train.jsonl"
    data.write_text(ROWS)
    chosen: dict[str, Any] = {
        "path": folder / "budget.jsonl",
        "name": "notes",
        "epsilon": cost(*[PLANNED] * runs),
        "delta": DELTA,
        "data": data,
    }
    create_budget(**chosen | settings)
    return Budget(path=folder / "budget.jsonl")


def run_of(budget: Budget, name: str, *, steps: int = STEPS, folder: Path | None = None) -> Path:
    """Begin or go on with a run within the budget, up to so many steps; its ledger."""
    path = (folder or budget.path.parent) / f"{name}.jsonl"
    with budget.open_ledger(path=path, plan=PLAN, planned=PLANNED) as ledger:
        take(ledger, steps)
    return path


def take(ledger: Ledger, steps: int) -> None:
    """Charge the steps that are not charged yet."""
    for step in range(ledger.steps_charged, steps):
        ledger.charge(step=step, event=STEP)


def states(budget: Budget) -> list[str]:
    """What each run holds, in the order in which they came."""
    return [share.state for share in budget.read().shares.values()]
