"""A second run of one name says what both cost, and one that can be resumed is offered."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import Ledger, Repeated, epsilon

from dpacc.earlier_runs import begin_run, cost_with_earlier_runs
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan

PLAN = PrivacyPlan(
    dataset_size=100,
    expected_batch_size=10,
    steps=4,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-4,
)


def spend(folder: Path, *, steps: int, plan: PrivacyPlan = PLAN, note: str | None = None) -> None:
    folder.mkdir(parents=True)
    with Ledger.open(path=folder / "ledger.jsonl", plan=plan.to_json()) as ledger:
        if note is not None:
            ledger.note(subject=note, text="the seed was fixed")
        for step in range(steps):
            ledger.charge(step=step, event=plan.step_event)


def test_all_runs_of_one_name_are_priced_together(tmp_path: Path) -> None:
    """Two ledgers of 4 and 2 steps and a plan of 4 cost what 10 steps cost."""
    spend(tmp_path / "run", steps=4)
    spend(tmp_path / "run-2", steps=2)
    together = epsilon(event=Repeated(event=PLAN.step_event, times=10), delta=1e-4).epsilon
    said: list[str] = []
    folder = begin_run(output_dir=tmp_path, name="run", plan=PLAN, say=said.append)
    assert folder == tmp_path / "run-3"
    (told,) = said
    assert told.startswith(f"{tmp_path}/run and {tmp_path}/run-2 have spent a budget already")
    shown = float(told.split("ε = ")[1].split()[0])
    assert together <= shown < together * 1.001


def test_nothing_is_said_where_nothing_was_spent(tmp_path: Path) -> None:
    """No folder, one without a ledger, and one whose ledger has no release."""
    assert cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN) is None
    (tmp_path / "run").mkdir()
    spend(tmp_path / "run-2", steps=0)
    assert cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN) is None


def test_a_run_that_can_go_on_is_offered_and_no_second_budget_spent(tmp_path: Path) -> None:
    """A job that is queued again would else begin anew: its checkpoints say where it stands."""
    spend(tmp_path / "run", steps=2)
    (tmp_path / "run/checkpoints").mkdir()
    with pytest.raises(ConfigurationError, match=r"2 of 4 steps: go on with --resume .*/run, or"):
        begin_run(output_dir=tmp_path, name="run", plan=PLAN, say=print)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    begin_run(output_dir=tmp_path, name="other", plan=PLAN, say=print)


@pytest.mark.parametrize("strange", ["unit", "void"])
def test_costs_that_cannot_be_added_are_named_without_a_number(
    strange: str, tmp_path: Path
) -> None:
    """Another privacy unit, or a run without privacy: no one ε covers both."""
    if strange == "unit":
        other = PrivacyPlan.from_json(PLAN.to_json() | {"unit": "patient"})
        spend(tmp_path / "run", steps=4, plan=other)
    else:
        spend(tmp_path / "run", steps=4, note="fixed-seed")
    told = cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN)
    assert told is not None
    assert told.endswith("run has spent a budget already, whose costs add to this run's")
