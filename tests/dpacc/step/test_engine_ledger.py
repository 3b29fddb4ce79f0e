"""The engine and its ledger: what is released was charged before, whatever fails in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import BudgetExhausted
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.step.engine_runs import LENGTHS, plan_for, prepared, received
from tests.tiny_models import collate, examples


def test_the_ledger_holds_exactly_the_steps_released(tmp_path: Path) -> None:
    """One charge an update, each with the plan's event; the guarantee prices them."""
    data, ledger = examples(LENGTHS), tmp_path / "ledger.jsonl"
    plan = plan_for(len(data), noise_multiplier=2.0, expected_batch_size=2, steps=4)
    engine, model, optimizer = prepared(plan, ledger, seed=None)
    for done, step in enumerate(engine.steps(data, collate)):
        assert len(read_ledger(path=ledger).releases) == done == len(optimizer.received)
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        assert engine.steps_charged == done + 1
        assert engine.guarantee() == plan.guarantee(steps=done + 1)
    record = read_ledger(path=ledger)
    assert [release.step for release in record.releases] == [0, 1, 2, 3]
    assert {release.event for release in record.releases} == {plan.charge(0)}
    assert record.notes == ()


KILLED_BETWEEN_CHARGE_AND_UPDATE = """
import os, sys
from pathlib import Path
from dpacc.ranks.backends import Replicated
from tests.dpacc.step.engine_runs import LENGTHS, plan_for, received
from tests.tiny_models import examples

def die(*arguments):
    os._exit(9)

Replicated.update = die
received(plan_for(len(LENGTHS)), examples(LENGTHS), Path(sys.argv[1]))
"""


def test_dying_between_charge_and_update_leaves_the_charge(tmp_path: Path) -> None:
    """The ledger is never behind what may have been released."""
    ledger = tmp_path / "ledger.jsonl"
    finished = subprocess.run(
        [sys.executable, "-c", KILLED_BETWEEN_CHARGE_AND_UPDATE, str(ledger)],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert finished.returncode == 9
    assert [release.step for release in read_ledger(path=ledger).releases] == [0]


def test_a_ledger_that_cannot_be_written_stops_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No charge, no release: the adapters do not move."""
    engine, model, optimizer = prepared(plan_for(len(LENGTHS)), tmp_path / "ledger.jsonl")

    def fail(index: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(engine.run_ledger, "_write", fail)
    step = next(engine.steps(examples(LENGTHS), collate))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    with pytest.raises(OSError, match="disk full"):
        step.update()
    assert optimizer.received == []
    assert engine.steps_charged == 0


def test_a_charge_counts_even_when_what_follows_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever catches a failed update is told the ε that the ledger holds, not less."""
    ledger = tmp_path / "ledger.jsonl"
    plan = plan_for(len(LENGTHS), noise_multiplier=2.0)
    engine, model, _ = prepared(plan, ledger)

    def fail(*arguments: Any) -> None:
        raise OSError("optimizer gone")

    monkeypatch.setattr(engine._backend, "update", fail)
    step = next(engine.steps(examples(LENGTHS), collate))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    with pytest.raises(OSError, match="optimizer gone"):
        step.update()
    assert len(read_ledger(path=ledger).releases) == 1
    assert engine.steps_charged == 1
    assert engine.guarantee().void_because == ("sampling and noise came from the fixed seed 3",)


def test_a_spent_ledger_stops_the_next_run(tmp_path: Path) -> None:
    """Charges of an earlier run count: the plan's steps are not handed out twice."""
    data, plan, ledger = examples(LENGTHS), plan_for(len(LENGTHS)), tmp_path / "ledger.jsonl"
    received(plan, data, ledger)
    with pytest.raises(BudgetExhausted, match="all 3 steps"):
        received(plan, data, ledger)
    assert len(read_ledger(path=ledger).releases) == 3
