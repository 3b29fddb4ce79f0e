"""A run within its data set's budget: asked before the first step, committed after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import Budget, BudgetError, BudgetExceeded, create_budget, read_ledger

from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import LENGTHS, plan_for, prepared, taken
from tests.tiny_models import collate, examples

DATA = examples(LENGTHS)
PLAN = plan_for(len(DATA), noise_multiplier=2.0)


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    """Room for one run of the plan, and no more."""
    path = tmp_path / "budget.jsonl"
    total = PLAN.guarantee().epsilon
    create_budget(path=path, name="notes", epsilon=total, delta=PLAN.target_delta)
    return path


def run(ledger: Path, budget: Path, **changes: Any) -> tuple[PrivacyEngine, torch.nn.Module]:
    changed = {"seed": None, "plan": PLAN} | changes
    engine, model, _ = prepared(changed.pop("plan"), ledger, budget=budget, **changed)
    return engine, model


def states(budget: Path) -> list[str]:
    return [share.state for share in Budget(path=budget).read().shares.values()]


def test_a_run_reserves_before_its_first_step_and_commits_after_its_last(
    tmp_path: Path, budget: Path
) -> None:
    """All its steps are held from the first on; a second run takes none, and leaves no ledger."""
    engine, model = run(tmp_path / "one.jsonl", budget)
    seen = []
    for step in engine.steps(DATA, collate):
        (share,) = Budget(path=budget).read().shares.values()
        seen.append((share.state, share.event == PLAN.event(), engine.steps_charged))
        _learn(step, model)
    assert seen == [("reserved", True, done) for done in range(PLAN.steps)]
    engine.close()
    assert states(budget) == ["committed"]
    other, model = run(tmp_path / "two.jsonl", budget)
    with pytest.raises(BudgetExceeded, match=r"earlier runs \(1, 0 only reserved\) hold"):
        taken(other, model, DATA)
    assert not (tmp_path / "two.jsonl").exists()
    assert other.steps_charged == 0


def test_a_run_that_stops_holds_its_plan_and_finds_it_again(tmp_path: Path, budget: Path) -> None:
    """Closed after one step it stays reserved; opened again it takes the others, and is through."""
    kept = {"checkpoints": tmp_path / "checkpoints"}
    engine, model = run(tmp_path / "one.jsonl", budget, **kept)
    assert taken(engine, model, DATA, at_most=1) == [0]
    assert states(budget) == ["reserved"]
    other, model = run(tmp_path / "two.jsonl", budget)
    with pytest.raises(BudgetExceeded, match="1 only reserved"):
        taken(other, model, DATA)
    for expected in ([1, 2], []):
        engine, model = run(tmp_path / "one.jsonl", budget, **kept)
        engine.resume()
        assert taken(engine, model, DATA) == expected
        assert states(budget) == ["committed"]
    assert len(read_ledger(path=tmp_path / "one.jsonl").grants) == 2


def test_a_run_that_is_not_private_or_of_another_unit_is_refused(
    tmp_path: Path, budget: Path
) -> None:
    """A fixed seed, no noise, and another unit: no step, no ledger, no share."""
    user = plan_for(len(DATA), noise_multiplier=2.0, unit="user")
    silent = plan_for(len(DATA), noise_multiplier=0.0, allow_no_privacy=True)
    for changes, why in (
        ({"seed": 3}, "fixed seed 3"),
        ({"plan": silent}, "all would cost ε = inf"),
        ({"plan": user}, "unit"),
    ):
        engine, model = run(tmp_path / "one.jsonl", budget, **changes)
        with pytest.raises(BudgetError, match=why):
            taken(engine, model, DATA)
        engine.close()
        assert not (tmp_path / "one.jsonl").exists()
    assert states(budget) == []


def test_a_commit_that_fails_is_told_and_the_run_counts_in_full(
    tmp_path: Path, budget: Path
) -> None:
    """Nothing is lost for it: the adapter is there, and the owner is told what to do."""
    engine, model = run(tmp_path / "one.jsonl", budget)
    key = Budget(path=budget).read().key
    for step in engine.steps(DATA, collate):
        _learn(step, model)
    key.rename(tmp_path / "away")
    with pytest.warns(UserWarning, match=r"dpacc budget commit .* counts with its whole plan"):
        engine.close()
    (tmp_path / "away").rename(key)
    assert states(budget) == ["reserved"]


@pytest.mark.parametrize("sampling", ["allocated", "poisson"])
def test_what_is_reserved_is_all_that_a_plan_can_charge(tmp_path: Path, sampling: str) -> None:
    """An epoch is charged with its first step, and the plan's event holds it whole."""
    plan = PrivacyPlan(
        dataset_size=len(DATA),
        expected_batch_size=5,
        steps=5,
        noise_multiplier=3.0,
        max_grad_norm=1e-2,
        target_delta=1e-3,
        sampling=sampling,  # type: ignore[arg-type]
    )
    path = tmp_path / "budget.jsonl"
    total = plan.guarantee().epsilon
    create_budget(path=path, name="notes", epsilon=total, delta=plan.target_delta)
    engine, model = run(tmp_path / "one.jsonl", path, plan=plan)
    taken(engine, model, DATA)
    (share,) = Budget(path=path).read().shares.values()
    assert share.state == "committed"
    assert engine.guarantee().epsilon <= total


def _learn(step: Any, model: torch.nn.Module) -> None:
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    step.update()
