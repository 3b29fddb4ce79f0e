"""A report with its data set's budget: composed, never added, and what is amiss comes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dpacc_accounting import create_budget
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli.report.data_set_budget import gather_budget, left_of
from tests.cli.conftest import Run
from tests.cli.dashboard.folders import budget, federation
from tests.cli.report.folders import finished_run, no_attackers, nobody_asked


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)


def page_of(dpacc: Run, out: Path, *words: object) -> str:
    done = dpacc("report", *words, "--html", out)
    assert done.code == 0, done.err
    return out.read_text()


def test_a_report_says_what_is_left_as_the_command_does(dpacc: Run, tmp_path: Path) -> None:
    """Total, spent and held are those of `dpacc budget show`, and the run is found among them."""
    total = budget(tmp_path / "notes")
    said = json.loads(dpacc("budget", "show", total, "--json").out)
    run = tmp_path / "notes/second/ledger.jsonl"
    page = page_of(dpacc, tmp_path / "out.html", run, "--budget", total)
    for each in ("spent", "held"):
        assert f"<td>ε = {rounded_up(said[each]['epsilon'], digits=6)}</td>" in page
    assert "This run is among those that hold it" in page
    assert "does not count this run" not in page
    facts = gather_budget(path=total)
    assert facts.left == facts.record.epsilon - said["held"]["epsilon"]
    assert facts.held.epsilon < sum(alone.epsilon for _, alone in facts.alone)


def test_a_run_beside_the_budget_is_said_on_the_first_page(dpacc: Run, tmp_path: Path) -> None:
    """Its cost comes on top of what the budget counts."""
    total = budget(tmp_path / "notes")
    other = finished_run(tmp_path / "other")
    page = page_of(dpacc, tmp_path / "out.html", other, "--budget", total)
    first = page[: page.index("What was to be protected")]
    assert "the budget of notes does not count this run" in first
    assert "with qualifications" in first


def test_an_exceeded_budget_is_said_on_the_first_page(dpacc: Run, tmp_path: Path) -> None:
    """Runs from before it, committed later, may cost more than its total; nothing is left then."""
    (tmp_path / "train.jsonl").write_text("{}\n")
    total = tmp_path / "small.budget.jsonl"
    create_budget(path=total, name="notes", epsilon=1.0, delta=1e-5, data=tmp_path / "train.jsonl")
    early = [finished_run(tmp_path / name) for name in ("one", "two")]
    for each in early:
        assert dpacc("budget", "commit", total, each).code == 0
    page = page_of(dpacc, tmp_path / "out.html", *early, "--budget", total)
    first = page[: page.index("What was to be protected")]
    assert "hold more together than its budget allows" in first
    facts = gather_budget(path=total)
    assert (facts.within, facts.left) == (False, 0.0)
    assert "EXCEEDED" in left_of(facts)


def test_what_has_a_budget_of_its_own_is_refused(dpacc: Run, tmp_path: Path) -> None:
    """A federation's clients each have theirs."""
    total = budget(tmp_path / "notes")
    fed = federation(tmp_path / "fed")
    done = dpacc("report", fed, "--budget", total, "--html", tmp_path / "out.html")
    assert done.code == 2
    assert "--budget are for runs" in done.err
