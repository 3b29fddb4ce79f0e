"""A run's life in a budget: begun, killed, resumed, ended, or given back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from dpacc_accounting import Budget, BudgetError, Ledger, LedgerError, read_budget

from tests.accounting.budget.budgets import (
    PLAN,
    PLANNED,
    STEP,
    budget_in,
    cost,
    run_of,
    states,
    take,
)


def test_a_resumed_run_reserves_once(tmp_path: Path) -> None:
    """However often it is opened again, and although nobody else would be granted any more."""
    budget = budget_in(tmp_path, runs=1)
    for steps in (1, 2, 3):
        path = run_of(budget, "one", steps=steps)
        assert states(budget) == ["reserved"]
    assert budget.commit(ledgers=[path]).event == PLANNED
    assert cost(budget.commit(ledgers=[path]).event) == budget.read().epsilon


def test_a_run_that_goes_on_after_its_commit_asks_again(tmp_path: Path) -> None:
    """If others took the room meanwhile it is refused, and its ledger stays as it was."""
    budget = budget_in(tmp_path, runs=1)
    path = run_of(budget, "one", steps=1)
    budget.commit(ledgers=[path])
    run_of(budget, "one", steps=2)
    assert states(budget) == ["reserved"]
    budget.commit(ledgers=[path])
    other = budget.open_ledger(path=tmp_path / "small.jsonl", plan=PLAN, planned=STEP)
    other.close()
    before = path.read_bytes()
    with pytest.raises(BudgetError, match="allows ε"):
        run_of(budget, "one", steps=3)
    assert path.read_bytes() == before


def test_a_run_that_is_open_is_neither_committed_nor_released(tmp_path: Path) -> None:
    """It may charge at any moment; its owner is told to wait."""
    budget = budget_in(tmp_path)
    path = tmp_path / "one.jsonl"
    with budget.open_ledger(path=path, plan=PLAN, planned=PLANNED) as ledger:
        with pytest.raises(LedgerError, match="open in this very process"):
            budget.commit(ledgers=[path])
        with pytest.raises(LedgerError, match="open in this very process"):
            budget.release(run=ledger.run)
    assert states(budget) == ["reserved"]


def test_only_a_reservation_that_spent_nothing_is_given_back(tmp_path: Path) -> None:
    """One charge is enough to refuse, whatever the owner says."""
    budget = budget_in(tmp_path, runs=1)
    run_of(budget, "one", steps=0)
    (run,) = budget.read().shares
    assert budget.release(run=run[:8]).state == "released"
    path = run_of(budget, "two", steps=1)
    _, second = budget.read().shares
    for said in (False, True):
        with pytest.raises(BudgetError, match=r"holds 1 releases.*commit it"):
            budget.release(run=second, no_step_was_taken=said)
    with pytest.raises(BudgetError, match="is the ledger of run"):
        budget.release(run=second, ledger=tmp_path / "one.jsonl")
    path.unlink()
    with pytest.raises(BudgetError, match="missing, so nobody knows"):
        budget.release(run=second)
    share = budget.release(run=second, no_step_was_taken=True)
    assert share.said is not None
    assert budget.read().shares[second] == share
    for word in (run, "", second):
        with pytest.raises(BudgetError, match="has 0 open reservations"):
            budget.release(run=word)


def test_a_released_run_asks_again(tmp_path: Path) -> None:
    """Its ledger may be used after all, within what is left then."""
    budget = budget_in(tmp_path, runs=1)
    run_of(budget, "one", steps=0)
    budget.release(run=next(iter(budget.read().shares)))
    run_of(budget, "two", steps=0)
    with pytest.raises(BudgetError, match="allows ε"):
        run_of(budget, "one", steps=1)
    assert states(budget) == ["released", "reserved"]


def test_a_ledger_lost_and_said_to_be_empty_is_found_out(tmp_path: Path) -> None:
    """Once it is back with its charges, nobody is granted anything before it is committed."""
    budget = budget_in(tmp_path)
    path = run_of(budget, "one", steps=2)
    kept = path.read_bytes()
    path.unlink()
    budget.release(run=next(iter(budget.read().shares)), no_step_was_taken=True)
    path.write_bytes(kept)
    with pytest.raises(BudgetError, match="after it was released"):
        run_of(budget, "two")


STORED = ("ledger", "its folder", "its grant", "budget", "key")
"""What a new run stores, in order."""


@pytest.mark.parametrize("failing", STORED)
def test_a_disk_that_refuses_grants_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whichever file it refuses to store: no step may be taken, and all can be read and used."""
    budget = budget_in(tmp_path, runs=3)
    run_of(budget, "one")
    before, stored, in_order = budget.path.read_bytes(), os.fsync, iter(STORED)

    def refuse(descriptor: int) -> None:
        if next(in_order, None) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stored(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(LedgerError, match="No space left"):
            run_of(budget, "two")
    # A line that the key may know already stays: that run counts, although it never began.
    counted = failing == "key"
    assert (budget.path.read_bytes() == before) is not counted
    assert not budget.path.with_name("train.jsonl.budget-key.claim").is_symlink()
    run_of(budget, "two")
    assert len(states(budget)) == 2 + counted


def test_a_disk_that_takes_half_a_line_grants_nothing(tmp_path: Path) -> None:
    """Its first bytes are stored and the others are not: they go, and the next run begins."""
    resource = pytest.importorskip("resource")
    budget = budget_in(tmp_path)
    run_of(budget, "one")
    before = budget.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(BudgetError, match=r"cannot write budget .* too large"):
            run_of(budget, "two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert budget.path.read_bytes() == before
    run_of(budget, "two")
    assert len(states(budget)) == 2


def test_a_line_torn_anywhere_was_never_granted(tmp_path: Path) -> None:
    """Cut at any byte of its last line, before anybody was told of it, the budget goes on."""
    budget = budget_in(tmp_path, runs=9)
    key = read_budget(path=budget.path).key
    first, remembered = budget.path.read_bytes(), key.read_bytes()
    run_of(budget, "one", steps=0)
    whole = budget.path.read_bytes()
    for size in (*range(len(first), len(whole), 211), len(whole) - 1, len(whole)):
        budget.path.write_bytes(whole[:size])
        key.write_bytes(remembered)
        record = budget.read()
        assert record.torn == (len(first) < size < len(whole) - 1)
        assert len(record.shares) == (size >= len(whole) - 1)
        run_of(budget, "one", steps=0)
        run_of(budget, f"more-{size}", steps=0)
        assert {"reserved"} == {*states(budget)}
        assert len(states(budget)) == 2


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    """A run whose data has other bytes is told so, and one whose budget names none is not."""
    budget = budget_in(tmp_path)
    budget.require_data(data=tmp_path / "train.jsonl")
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(BudgetError, match="is not the data of budget 'notes'"):
        budget.require_data(data=tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="cannot read the data"):
        budget.require_data(data=tmp_path / "absent.jsonl")
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    budget_in(nameless, data=None).require_data(data=tmp_path / "other.jsonl")


def test_a_ledger_begun_without_the_budget_reserves_its_whole_plan(tmp_path: Path) -> None:
    """Steps that it took before are part of the plan, and are not paid for twice."""
    budget = budget_in(tmp_path, runs=1)
    with Ledger.open(path=tmp_path / "one.jsonl", plan=PLAN) as ledger:
        take(ledger, 2)
    run_of(budget, "one")
    with pytest.raises(BudgetError, match=r"earlier runs \(1,"):
        run_of(Budget(path=budget.path), "two")
