"""What lies where a dashboard is pointed at."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import Ledger

from dpacc.cli.dashboard.places import find_places
from dpacc.errors import ConfigurationError
from tests.cli.dashboard.folders import budget, course, federation
from tests.cli.report.folders import PLAN


def _run(folder: Path) -> None:
    folder.mkdir(parents=True)
    Ledger.open(path=folder / "ledger.jsonl", plan=PLAN.to_json()).close()


def test_each_kind_is_found_once(tmp_path: Path) -> None:
    """Runs at any depth to three, federations while they go on and after, budgets; no link."""
    _run(tmp_path / "runs/one")
    _run(tmp_path / "runs/.hidden")
    (tmp_path / "runs/linked").symlink_to(tmp_path / "runs/one")
    federation(tmp_path / "ended", own={"films": 6})
    federation(tmp_path / "live", state=True)
    budget(tmp_path / "notes")
    course(tmp_path / "runs/one/two.course.json")
    found = find_places(paths=[tmp_path])
    runs = {"runs/one", "ended/films", "notes/first", "notes/second"}
    assert {each.name for each in found.runs} == runs
    assert {each.name for each in found.federations} == {"ended", "live"}
    assert [each.name for each in found.budgets] == ["notes/notes.budget.jsonl"]
    assert [each.name for each in found.courses] == ["runs/one/two.course.json"]
    again = find_places(paths=[tmp_path, tmp_path / "runs"])
    assert len(again.courses) == 1
    assert len(again.runs) == len(found.runs)


def test_what_is_named_outright_is_what_it_is(tmp_path: Path) -> None:
    """A ledger or a budget by whatever name, a course; two of one name are told apart."""
    _run(tmp_path / "a/one")
    _run(tmp_path / "b/one")
    other = budget(tmp_path / "notes").rename(tmp_path / "total.jsonl")
    ledger = (tmp_path / "a/one/ledger.jsonl").rename(tmp_path / "a/one/books.jsonl")
    saved = course(tmp_path / "saved.course.json")
    found = find_places(paths=[ledger, other, saved, tmp_path / "b/one"])
    assert [each.path for each in found.courses] == [saved]
    assert [each.name for each in found.runs] == ["books.jsonl", "one"]
    assert [each.path.name for each in found.budgets] == ["total.jsonl"]
    _run(tmp_path / "c/one")
    twice = find_places(paths=[tmp_path / "b/one", tmp_path / "c/one"])
    assert len({each.name for each in twice.runs}) == 2


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the remedy."""
    with pytest.raises(ConfigurationError, match=r"there is no .*nowhere: name a folder"):
        find_places(paths=[tmp_path / "nowhere"])
