"""`dpacc report`: files that are there whole or not at all, and an exit code that warns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dpacc_accounting import Ledger

from tests.cli.conftest import Run
from tests.cli.report.folders import FIXED_SEED, PLAN, audit_file, finished_run, nobody_asked


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_asked(monkeypatch)


def test_both_pages_are_written(dpacc: Run, tmp_path: Path) -> None:
    """With an audit beside the claim; the JSON carries the claim with all that it assumes."""
    folder = finished_run(tmp_path / "run")
    audit = audit_file(tmp_path / "audit.json")
    page, pdf = tmp_path / "out.html", tmp_path / "out.pdf"
    done = dpacc("report", folder, "--audit", audit, "--html", page, "--pdf", pdf, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["standing"] == "holds"
    assert said["files"] == [str(page), str(pdf)]
    assert {"epsilon", "delta", "adjacency", "unit", "method"} <= said["claims"][0].keys()
    assert "NOT what is claimed here" in page.read_text()
    assert pdf.read_bytes().startswith(b"%PDF")


def test_a_run_that_is_not_private_is_reported_and_warned_of(dpacc: Run, tmp_path: Path) -> None:
    """Exit code 1, and a page that says so in large letters before anything else."""
    folder = finished_run(tmp_path / "run", notes=[FIXED_SEED])
    done = dpacc("report", folder, "--html", tmp_path / "out.html")
    assert done.code == 1
    assert "NOT private" in done.err
    page = (tmp_path / "out.html").read_text()
    assert 'class="verdict broken"' in page
    assert page.index("NOT private") < page.index("What was to be protected")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run"], "--html report.html"),
        (["run", "--html", "out.txt"], "must end in .html"),
        (["run", "--pdf", "nowhere/out.pdf"], "there is no folder nowhere"),
        (["empty", "--html", "out.html"], "without a ledger.jsonl"),
        (["run", "--html", "out.html", "--audit", "run/ledger.jsonl"], "ledger.jsonl"),
        (["run", "--html", "out.html", "--audit", "other.json"], "is not an audit"),
        (["run", "--html", "out.html", "--audit", "attack.json"], "without noise"),
        (["torn", "--html", "out.html", "--pdf", "out.pdf"], "line 3"),
        (["run", "--html", "out.html", "--delta", "2"], "delta"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    dpacc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], complaint: str
) -> None:
    """Exit code 2, what is wrong, and no page, whole or partial."""
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "run")
    torn = finished_run(tmp_path / "torn") / "ledger.jsonl"
    torn.write_text(torn.read_text().replace('"step":1', '"step":9'))
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text('{"claim": {"epsilon": 1}}')
    (tmp_path / "attack.json").write_text('{"membership": {"auc": 0.5}}')
    before = {*tmp_path.rglob("*")}
    done = dpacc("report", *words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert complaint in done.err
    assert {*tmp_path.rglob("*")} == before


def test_a_ledger_whose_plan_is_short_is_completed(dpacc: Run, tmp_path: Path) -> None:
    """What it lacks is named; given beside the ledger, it is said beside ε."""
    short = {each: PLAN.to_json()[each] for each in ("unit", "adjacency", "target_delta")}
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=short) as book:
        book.charge(step=0, event=PLAN.charge(0))
    page, beside = tmp_path / "out.html", tmp_path / "plan.json"
    beside.write_text(json.dumps(PLAN.to_json()))
    done = dpacc("report", tmp_path, "--html", page)
    assert done.code == 2
    assert "--settings" in done.err
    assert not page.exists()
    done = dpacc("report", tmp_path, "--html", page, "--settings", beside)
    assert done.code == 0, done.err
    assert "given beside it" in page.read_text()


def test_a_page_that_cannot_be_written_leaves_none(dpacc: Run, tmp_path: Path) -> None:
    """Neither of two, if the second has no place."""
    folder = finished_run(tmp_path / "run")
    (tmp_path / ".out.pdf.partial").mkdir()
    done = dpacc("report", folder, "--html", tmp_path / "out.html", "--pdf", tmp_path / "out.pdf")
    assert done.code == 2
    assert not (tmp_path / "out.html").exists()
