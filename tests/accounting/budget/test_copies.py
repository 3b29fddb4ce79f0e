"""Copies and shortened files: of the budget, of its key, of a run's ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dpacc_accounting import Budget, BudgetError, Ledger, read_budget

from tests.accounting.budget.budgets import PLAN, PLANNED, budget_in, run_of, states, take


def test_a_shortened_budget_is_refused(tmp_path: Path) -> None:
    """Cut by any number of lines, it lacks what its key remembers, and grants nobody anything."""
    budget = budget_in(tmp_path)
    for name in ("one", "two"):
        run_of(budget, name, steps=0)
    lines = budget.path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        budget.path.write_bytes(b"".join(lines[:kept]))
        for attempt in (budget.read, lambda: run_of(budget, "three")):
            with pytest.raises(BudgetError, match="shortened, restored"):
                attempt()
    budget.path.write_bytes(b"")
    with pytest.raises(BudgetError, match="does not begin"):
        budget.read()


def test_a_line_that_was_changed_taken_out_or_moved_is_found(tmp_path: Path) -> None:
    """The chain names its number, as a ledger's does."""
    budget = budget_in(tmp_path)
    for name in ("one", "two"):
        run_of(budget, name, steps=0)
    first, second, third = budget.path.read_bytes().splitlines(keepends=True)
    less = second.replace(b'"times":3', b'"times":1')
    for broken in (
        first.replace(b'"example"', b'"patient"') + second + third,
        first + less + third,
        first + third,
        first + third + second,
        first + b"[]\n" + second,
        b"null\n",
    ):
        budget.path.write_bytes(broken)
        with pytest.raises(BudgetError, match=r"line [12]"):
            budget.read()


def test_of_two_copies_of_a_budget_one_goes_on(tmp_path: Path) -> None:
    """Both know one key, which remembers the one that was used last; the other is refused."""
    budget = budget_in(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = Budget(path=Path(shutil.copy(budget.path, elsewhere)))
    run_of(copy, "one", steps=0)
    with pytest.raises(BudgetError, match="is a copy beside which another went on"):
        run_of(budget, "two", steps=0)
    run_of(copy, "two", steps=0)
    with pytest.raises(BudgetError, match="allows ε"):
        run_of(copy, "three", steps=0)


def test_a_budget_may_move_and_its_key_may_not(tmp_path: Path) -> None:
    """Without its key nobody is granted anything; with another's neither."""
    budget = budget_in(tmp_path)
    (tmp_path / "shared").mkdir()
    moved = Budget(path=Path(shutil.move(budget.path, tmp_path / "shared")))
    run_of(moved, "one", steps=0)
    key = moved.read().key
    key.rename(tmp_path / "away")
    with pytest.raises(BudgetError, match=r"cannot read the budget's key .* beside the data"):
        run_of(moved, "two", steps=0)
    other = tmp_path / "other"
    other.mkdir()
    key.write_bytes(read_budget(path=budget_in(other).path).key.read_bytes())
    with pytest.raises(BudgetError, match="not of one making"):
        run_of(moved, "two", steps=0)
    for words in (b"hello\n", (tmp_path / "away").read_bytes().splitlines()[0] + b"\n"):
        key.write_bytes(words)
        with pytest.raises(BudgetError, match="is no key"):
            moved.read()


def test_a_data_set_has_one_budget(tmp_path: Path) -> None:
    """A second one for the same file would be a second total; the file's key says so."""
    budget_in(tmp_path)
    (tmp_path / "budget.jsonl").rename(tmp_path / "first.jsonl")
    with pytest.raises(BudgetError, match="has a budget already"):
        budget_in(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "train.jsonl")
    with pytest.raises(BudgetError, match="has a budget already"):
        budget_in(tmp_path, data=tmp_path / "link.jsonl")
    assert not (tmp_path / "budget.jsonl").exists()


def test_a_budget_and_its_key_restored_together_are_found_by_a_ledger(tmp_path: Path) -> None:
    """They agree with one another, but not with the run that was granted since."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    old = budget.path.read_bytes(), key.read_bytes()
    path = run_of(budget, "one", steps=1)
    budget.path.write_bytes(old[0])
    key.write_bytes(old[1])
    for attempt in (lambda: run_of(budget, "one"), lambda: budget.commit(ledgers=[path])):
        with pytest.raises(BudgetError, match="lacks what it granted"):
            attempt()


def test_of_two_copies_of_a_ledger_one_goes_on(tmp_path: Path) -> None:
    """A copy is refused while the first is there, and a copy of an earlier state ever after."""
    budget = budget_in(tmp_path, runs=1)
    path = run_of(budget, "one", steps=1)
    copy = Path(shutil.copy(path, tmp_path / "copy.jsonl"))
    with pytest.raises(BudgetError, match="is a copy: the ledger of run"):
        run_of(budget, "copy")
    run_of(budget, "one", steps=2)
    path.unlink()
    for attempt in (lambda: run_of(budget, "copy"), lambda: budget.commit(ledgers=[copy])):
        with pytest.raises(BudgetError, match="lacks lines that this run's ledger had"):
            attempt()
    assert states(budget) == ["reserved"]


def test_a_moved_run_goes_on(tmp_path: Path) -> None:
    """A folder that was renamed is no copy."""
    budget = budget_in(tmp_path, runs=1)
    run_of(budget, "one", steps=1).rename(tmp_path / "renamed.jsonl")
    path = run_of(budget, "renamed")
    assert budget.commit(ledgers=[path]).event == PLANNED
    assert states(budget) == ["committed"]


def test_a_ledger_killed_between_its_line_and_the_budgets_asks_again(tmp_path: Path) -> None:
    """It names a grant that never came, and has no charge after it: nothing was forgotten."""
    budget = budget_in(tmp_path)
    path = tmp_path / "one.jsonl"
    with Ledger.open(path=path, plan=PLAN) as ledger:
        take(ledger, 1)
        ledger.granted(budget=budget.read().budget, head=budget.read().head)
    run_of(budget, "one")
    assert states(budget) == ["reserved"]
