"""The Trainer within its data set's budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import Budget, BudgetExceeded, create_budget, read_ledger

from tests.dpacc.trainer.test_private_trainer import private, trainer


def test_a_trainer_reserves_before_its_first_step(tmp_path: Path) -> None:
    """It commits what it spent in the end; a second one with the same budget takes no step."""
    path = tmp_path / "budget.jsonl"
    asked = {"fixed_seed": None, "noise_multiplier": None, "target_epsilon": 4.0}
    create_budget(path=path, name="notes", epsilon=4.0, delta=1e-3)
    first = trainer(tmp_path / "one", privacy=private(**asked, budget=str(path)))
    first.train()
    (share,) = Budget(path=path).read().shares.values()
    assert share.state == "committed"
    assert share.event == read_ledger(path=tmp_path / "one" / "ledger.jsonl").event
    second = trainer(tmp_path / "two", privacy=private(**asked, budget=str(path)))
    with pytest.raises(BudgetExceeded, match=r"earlier runs \(1, 0 only reserved\) hold"):
        second.train()
    assert not (tmp_path / "two" / "ledger.jsonl").exists()
