"""What is within a budget: the exact composition of what was spent, and of what may still be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting import (
    Budget,
    BudgetError,
    BudgetExceeded,
    Gaussian,
    Ledger,
    Repeated,
    Selected,
    Shuffled,
    epsilon,
    read_ledger,
)
from dpacc_accounting.budget.grants import held_together

from tests.accounting.budget.budgets import (
    DELTA,
    PLAN,
    PLANNED,
    STEP,
    budget_in,
    cost,
    run_of,
    states,
    take,
)


def test_a_third_run_is_refused_where_two_fit(tmp_path: Path) -> None:
    """Open reservations count in full, and the refused run leaves no file and no share."""
    budget = budget_in(tmp_path)
    run_of(budget, "one", steps=0)
    run_of(budget, "two", steps=0)
    before = budget.path.read_bytes()
    with pytest.raises(BudgetExceeded, match=r"earlier runs \(2, 2 only reserved\) hold"):
        run_of(budget, "three")
    assert not (tmp_path / "three.jsonl").exists()
    assert budget.path.read_bytes() == before


def test_losses_are_composed_and_epsilons_are_not_added(tmp_path: Path) -> None:
    """A total below the sum of the runs' ε admits them all where their composition is within it."""
    budget = budget_in(tmp_path, runs=6)
    for number in range(6):
        run_of(budget, f"run-{number}")
    record = budget.read()
    assert record.epsilon < 0.7 * 6 * cost(PLANNED)
    assert held_together(record=record).epsilon == cost(*[PLANNED] * 6)
    with pytest.raises(BudgetExceeded):
        run_of(budget, "one too many", steps=0)


def test_what_a_dead_run_did_not_spend_is_free_once_it_is_committed(tmp_path: Path) -> None:
    """A run that died after one step of three holds all three, until its ledger is committed."""
    budget = budget_in(tmp_path)
    dead = run_of(budget, "dead", steps=1)
    run_of(budget, "two")
    small = Repeated(event=STEP, times=2)
    with pytest.raises(BudgetExceeded):
        _begin(budget, "small", small)
    assert budget.commit(ledgers=[dead]).event == STEP
    _begin(budget, "small", small)
    assert states(budget) == ["committed", "reserved", "reserved"]


def test_what_was_spent_is_counted_whoever_allowed_it(tmp_path: Path) -> None:
    """A run from before the budget is taken although it is over the total; then nothing is."""
    budget = budget_in(tmp_path)
    with Ledger.open(path=tmp_path / "earlier.jsonl", plan=PLAN) as ledger:
        ledger.charge(step=0, event=Gaussian(noise_multiplier=0.1))
    budget.commit(ledgers=[tmp_path / "earlier.jsonl"])
    assert held_together(record=budget.read()).epsilon > budget.read().epsilon
    with pytest.raises(BudgetExceeded):
        run_of(budget, "one")


def test_a_run_that_is_not_private_spends_any_budget(tmp_path: Path) -> None:
    """A fixed seed is refused beforehand; committed afterwards, it ends the budget."""
    budget = budget_in(tmp_path)
    for name in ("seeded", "seeded before"):
        with Ledger.open(path=tmp_path / f"{name}.jsonl", plan=PLAN) as ledger:
            ledger.note(subject="fixed-seed", text="seed 7")
            with pytest.raises(BudgetError, match="seed 7"):
                budget.reserve(ledger=ledger, planned=PLANNED)
            take(ledger, 1)
    budget.commit(ledgers=[tmp_path / "seeded.jsonl"])
    with pytest.raises(BudgetExceeded, match="seed 7"):
        run_of(budget, "one")


@pytest.mark.filterwarnings("ignore:the plan of the new ledger")
@pytest.mark.parametrize(
    ("setting", "value"), [("unit", "patient"), ("adjacency", "replace-one"), ("unit", None)]
)
def test_a_run_for_other_neighbours_is_refused(
    tmp_path: Path, setting: str, value: str | None
) -> None:
    """ε of one unit or adjacency says nothing of another: neither reserved nor committed."""
    budget = budget_in(tmp_path)
    plan = {name: word for name, word in (PLAN | {setting: value}).items() if word is not None}
    with pytest.raises(BudgetError, match=setting):
        budget.open_ledger(path=tmp_path / "one.jsonl", plan=plan, planned=PLANNED)
    with Ledger.open(path=tmp_path / "one.jsonl", plan=PLAN | {setting: "other"}) as ledger:
        take(ledger, 1)
    with pytest.raises(BudgetError, match=setting):
        budget.commit(ledgers=[tmp_path / "one.jsonl"])


def test_a_search_is_composed_and_what_has_no_price_is_refused_by_name(tmp_path: Path) -> None:
    """The best of several runs counts as what it costs; shuffled batches have no price here."""
    budget = budget_in(tmp_path, epsilon=3.0)
    run_of(budget, "one")
    _begin(budget, "search", Selected(event=STEP, mean_runs=2.0, shape=1))
    held = held_together(record=budget.read())
    assert cost(PLANNED) < held.epsilon <= budget.read().epsilon
    with pytest.raises(BudgetError, match="no price together"):
        _begin(budget, "shuffled", Shuffled(event=STEP.event))


def test_a_run_that_went_on_behind_the_budgets_back_stops_all_others(tmp_path: Path) -> None:
    """Steps after a commit are found in its ledger, where that still is, at the next grant."""
    budget = budget_in(tmp_path)
    sly = run_of(budget, "sly", steps=1)
    budget.commit(ledgers=[sly])
    with Ledger.open(path=sly, plan=PLAN) as ledger:
        take(ledger, 2)
    with pytest.raises(BudgetError, match=r"went on after it was committed.*2 releases, not 1"):
        run_of(budget, "two")
    budget.commit(ledgers=[sly])
    run_of(budget, "two")


def test_two_copies_that_went_on_are_committed_together(tmp_path: Path) -> None:
    """Their common step counts once, and each one's own besides."""
    budget = budget_in(tmp_path, runs=4)
    path = run_of(budget, "one", steps=1)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    for each in (path, copy):
        with Ledger.open(path=each, plan=PLAN) as ledger:
            take(ledger, 3)
    with pytest.raises(BudgetError, match="is a copy"):
        budget.commit(ledgers=[copy])
    share = budget.commit(ledgers=[path, copy])
    assert epsilon(event=share.event, delta=DELTA).epsilon == cost(Repeated(event=STEP, times=5))
    with pytest.raises(BudgetError, match="several runs"):
        budget.commit(ledgers=[path, run_of(budget, "two")])


def test_a_ledger_that_holds_more_than_its_plan_reserves_nothing(tmp_path: Path) -> None:
    """A search's ledger names one trial's plan: reserving that, even later, counts too little."""
    budget = budget_in(tmp_path, epsilon=9.0)
    search = Selected(event=PLANNED, mean_runs=9.0, shape=1)
    with Ledger.open(path=tmp_path / "search.jsonl", plan=PLAN) as ledger:
        ledger.charge(step=0, event=search)
    for committed in (False, True):
        with pytest.raises(BudgetError, match="a ledger of its own"):
            _begin(budget, "search", PLANNED)
        assert budget.commit(ledgers=[tmp_path / "search.jsonl"]).event == search, committed


def test_a_run_may_not_change_its_plan(tmp_path: Path) -> None:
    """A reservation of little does not cover a plan of much."""
    budget = budget_in(tmp_path, runs=9)
    path = run_of(budget, "one", steps=0)
    with (
        Ledger.open(path=path, plan=PLAN) as ledger,
        pytest.raises(BudgetError, match="reserved another plan"),
    ):
        budget.reserve(ledger=ledger, planned=Repeated(event=STEP, times=9))
    share = budget.read().shares[read_ledger(path=path).run]
    assert share == replace(share, event=PLANNED)


def _begin(budget: Budget, name: str, planned: object) -> None:
    path = budget.path.parent / f"{name}.jsonl"
    budget.open_ledger(path=path, plan=PLAN, planned=planned).close()
