"""A new budget, or one line and no file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import BudgetError

from tests.accounting.budget.budgets import budget_in


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epsilon", 0.0),
        ("epsilon", math.inf),
        ("epsilon", math.nan),
        ("epsilon", True),
        ("delta", 0.0),
        ("delta", 1.0),
        ("name", " "),
        ("name", "two\nlines"),
        ("unit", ""),
        ("adjacency", "neighbours"),
        ("data", "absent.jsonl"),
    ],
)
def test_a_senseless_setting_leaves_nothing_behind(
    tmp_path: Path, setting: str, value: Any
) -> None:
    """It is named, and neither file is made."""
    with pytest.raises(ValueError, match=setting):
        budget_in(tmp_path, **{setting: value})
    assert [each.name for each in tmp_path.iterdir()] == ["train.jsonl"]


def test_a_folder_that_is_not_there_leaves_no_key_behind(tmp_path: Path) -> None:
    """Where the budget cannot be written its key goes, too; an existing budget stays."""
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(BudgetError, match="No such file"):
        budget_in(tmp_path, path=tmp_path / "absent" / "budget.jsonl")
    assert [each.name for each in tmp_path.iterdir()] == ["train.jsonl"]
    budget = budget_in(tmp_path)
    before = budget.path.read_bytes()
    with pytest.raises(BudgetError, match="exists: use that budget"):
        budget_in(tmp_path, key=tmp_path / "other-key")
    assert budget.path.read_bytes() == before
    assert not (tmp_path / "other-key").exists()
