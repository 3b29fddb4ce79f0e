"""A client of a federation within its data's budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import Budget, BudgetError, create_budget, read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.budgets import read_budgets
from dpacc.federated.requests import SPENT
from dpacc.federated.server.federated_server import FederatedServer
from tests.dpacc.federated.federations import DELTA, client, server, texts, tiny_folder


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    """Of the first client's texts: room for one federation at its ε."""
    tiny_folder(tmp_path)
    data = texts(tmp_path / "data-0.jsonl", seed=0)
    path = tmp_path / "budget.jsonl"
    create_budget(path=path, name="texts", epsilon=20.0, delta=DELTA, data=data)
    return path


def federated(place: Path, name: str, budget: Path) -> FederatedServer:
    """Two clients, of whom the first has a budget, through two rounds."""
    mine = client(place, 0, folder=place / name / "0", fixed_seed=None, dp={"budget": str(budget)})
    other = client(place, 1, folder=place / name / "1", fixed_seed=None)
    run = server(place, folder=place / name / "server")
    try:
        run.train(clients=[mine, other])
    finally:
        mine.close()
        other.close()
    return run


def test_a_client_reserves_all_its_rounds_before_its_first_step(
    tmp_path: Path, budget: Path
) -> None:
    """It commits what it spent; in a second federation it takes no step, and others go on."""
    run = federated(tmp_path, "first", budget)
    assert [sorted(each.survivors) for each in run.history.rounds] == [["site-0", "site-1"]] * 2
    (share,) = Budget(path=budget).read().shares.values()
    assert share.state == "committed"
    assert share.event == read_ledger(path=tmp_path / "first/0/ledger.jsonl").event
    again = federated(tmp_path, "second", budget)
    assert [*again.history.rounds[0].failed.values()] == [SPENT]
    assert not (tmp_path / "second/0/ledger.jsonl").exists()
    assert not (tmp_path / "second/0/stopped.json").exists()
    assert len(read_ledger(path=tmp_path / "second/1/ledger.jsonl").releases) > 0
    assert len(Budget(path=budget).read().shares) == 1


def test_other_data_and_a_rank_that_is_chosen_are_refused(tmp_path: Path, budget: Path) -> None:
    """The budget is of one file, and does not know what a choice of the rank costs."""
    dp = {"budget": str(budget)}
    with pytest.raises(BudgetError, match="is not the data of budget 'texts'"):
        client(tmp_path, 1, dp=dp).require_readable()
    with pytest.raises(ConfigurationError, match="ledger of its own"):
        client(tmp_path, 0, dp=dp, rank="adaptive")


def test_the_file_of_all_budgets_may_name_it(tmp_path: Path) -> None:
    """A client's entry takes the path as it is written."""
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "delta: 1e-5\ndefaults: {expected_batch_size: 8}\n"
        "clients: {north: {epsilon: 1, budget: north.jsonl}, south: {epsilon: 2}}\n"
    )
    found = read_budgets(path=path)
    assert (found["north"].budget, found["south"].budget) == ("north.jsonl", None)
