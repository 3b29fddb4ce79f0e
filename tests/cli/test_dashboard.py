"""`dpacc dashboard`: a list as JSON, and a server that is this machine's alone."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.dashboard.folders import budget, course, federation, runs_of_all_kinds
from tests.cli.report.folders import FIXED_SEED


def test_what_would_be_shown_is_printed(dpacc: Run, tmp_path: Path) -> None:
    """Every ledger priced as `dpacc spend` prices it; what voids one stands in it."""
    runs_of_all_kinds(tmp_path / "runs")
    federation(tmp_path / "fed")
    budget(tmp_path / "notes")
    course(tmp_path / "a.course.json")
    done = dpacc("dashboard", tmp_path, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    found = {each["name"]: each for each in said["runs"]}
    spent = json.loads(dpacc("spend", tmp_path / "runs/fine", "--json").out)
    for field in ("epsilon", "delta", "adjacency", "unit", "method", "slack"):
        assert found["runs/fine"][field] == spent[field]
    assert found["runs/void"]["void_because"] == [FIXED_SEED[1]]
    assert found["runs/damaged"]["epsilon"] is None
    assert list(said["federations"]) == ["fed"]
    assert list(said["courses"]) == ["a.course.json"]
    assert list(said["budgets"]) == ["notes/notes.budget.jsonl"]


@pytest.mark.parametrize(
    ("words", "warned"),
    [([], False), (["--address", "::1"], False), (["--address", "0.0.0.0"], True)],
)
def test_another_address_than_this_machine_is_warned_of(
    dpacc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], warned: bool
) -> None:
    """By default it is 127.0.0.1; the warning says who then reads what."""
    told: dict[str, object] = {}
    monkeypatch.setattr("dpacc.cli.dashboard.server.serve", lambda **words: told.update(words))
    done = dpacc("dashboard", tmp_path, *words)
    assert done.code == 0, done.err
    assert told["address"] == (words[1] if words else "127.0.0.1")
    assert ("WARNING" in done.err) is warned
    assert ("there is no password" in done.err) is warned


def test_bad_input_is_one_line(dpacc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is not there, and a machine without Streamlit, each with the remedy."""
    done = dpacc("dashboard", tmp_path / "nowhere")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "there is no" in done.err
    for module in ("streamlit", "streamlit.web", "streamlit.net_util"):
        monkeypatch.setitem(sys.modules, module, None)
    done = dpacc("dashboard", tmp_path)
    assert done.code == 2
    assert "pip install 'dpacc[dashboard]'" in done.err


def test_every_command_on_the_page_runs(
    dpacc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of docs/dashboard.md, up to where it would serve."""
    page = (Path(__file__).parents[2] / "docs/dashboard.md").read_text()
    monkeypatch.setattr("dpacc.cli.dashboard.server.serve", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    runs_of_all_kinds(tmp_path / "runs")
    budget(tmp_path / "notes").rename(tmp_path / "notes.budget.jsonl")
    lines = re.findall(r"^\$ dpacc (.*)$", page, flags=re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        done = dpacc(*shlex.split(line))
        assert done.code == 0, done.err
