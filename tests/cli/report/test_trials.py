"""A sweep on public data, which promises nothing, and what is told apart by its files."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest

from dpacc.artifacts.compliance import NOT_ADVICE, Circumstances, rows_for
from dpacc.artifacts.document.html_page import html_page
from dpacc.cli.report.any_kind import report_on
from dpacc.errors import ConfigurationError
from tests.cli.report.folders import audit_file, finished_run, no_attackers, nobody_asked

ROW = {
    "epsilon": 8.0,
    "delta": 1e-5,
    "adjacency": "add-or-remove",
    "unit": "example",
    "method": "pld",
}


def sweep(folder: Path, **found: float) -> Path:
    """A sweep of learning rates, by the accuracy that each found."""
    folder.mkdir()
    rows = [{"settings": {"rate": k}, "accuracy": v, **ROW} for k, v in found.items()]
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def test_a_sweep_on_public_data_promises_nothing(tmp_path: Path) -> None:
    """Whatever ε its trials had: they are listed, the best first, each as what it cost alone."""
    document = report_on(paths=[sweep(tmp_path / "sweep", low=0.5, high=0.75)])
    assert document.verdict.standing == "unclaimed"
    assert "ε =" not in document.verdict.headline
    page = html_page(document)
    assert page.index("rate = high") < page.index("rate = low")
    assert "ε alone" in page


def test_what_standards_ask_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question that applies to the run, with its answer, and that this is no advice."""
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)
    run = finished_run(tmp_path / "run")
    assert "Appendix" not in html_page(report_on(paths=[run]))
    page = html_page(report_on(paths=[run], asked=True))
    assert escape(NOT_ADVICE) in page
    rows = rows_for(Circumstances())
    assert len(rows) > 10
    assert all(escape(f"{row.reference}: {row.question}") in page for row in rows)
    assert all(escape(row.not_covered) in page for row in rows)


@pytest.mark.parametrize("text", ["", "{\n", "[]\n", '{"settings": {}}\n', "3\n"])
def test_damaged_results_are_refused(tmp_path: Path, text: str) -> None:
    """In a line that names the file."""
    (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(ConfigurationError, match=r"results\.jsonl"):
        report_on(paths=[tmp_path])


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """A sweep beside a run, an audit of several, a δ for a sweep, a folder of nothing."""
    public, run = sweep(tmp_path / "sweep", a=0.5), finished_run(tmp_path / "run")
    audit = audit_file(tmp_path / "audit.json")
    with pytest.raises(ConfigurationError, match="by itself"):
        report_on(paths=[public, run])
    with pytest.raises(ConfigurationError, match="an audit is of one run"):
        report_on(paths=[public], audits=[audit])
    with pytest.raises(ConfigurationError, match="--questions is for"):
        report_on(paths=[public], asked=True)
    with pytest.raises(ConfigurationError, match="--delta, --settings and --budget are for runs"):
        report_on(paths=[public], delta=1e-6)
    with pytest.raises(ConfigurationError, match="without a ledger"):
        report_on(paths=[tmp_path])
