"""Several runs: side by side, and together, never one for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting import Composed, epsilon
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.document.content import Document, Table
from dpacc.artifacts.document.html_page import html_page
from dpacc.cli.report.several import gather_several, report_of_several
from dpacc.errors import ConfigurationError
from tests.cli.report.folders import (
    FIXED_SEED,
    LOGGED,
    PLAN,
    finished_run,
    no_attackers,
    nobody_asked,
)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)


def reported(*folders: Path, delta: float | None = None) -> Document:
    ledgers = [folder / "ledger.jsonl" for folder in folders]
    return report_of_several(facts=gather_several(ledgers=ledgers, delta=delta))


def rows_of(document: Document) -> dict[str, tuple[str, ...]]:
    table = next(each for each in document.first_page if isinstance(each, Table))
    return {row[0]: row[1:] for row in table.rows}


def test_the_headline_is_the_total(tmp_path: Path) -> None:
    """The composition of both runs' releases: more than either, less than their sum."""
    louder = replace(PLAN, noise_multiplier=0.8)
    document = reported(finished_run(tmp_path / "one"), finished_run(tmp_path / "two", plan=louder))
    total = epsilon(event=Composed(events=(PLAN.event(), louder.event())), delta=1e-5).epsilon
    alone = [epsilon(event=each.event(), delta=1e-5).epsilon for each in (PLAN, louder)]
    assert max(alone) < total < sum(alone)
    assert f"(ε = {rounded_up(total)}, δ = 1e-05)" in document.verdict.headline
    assert "all of them used" in document.verdict.headline
    rows = rows_of(document)
    assert [rows[name][0] for name in ("one", "two")] == [rounded_up(e) for e in alone]
    page = html_page(document)
    assert rounded_up(total, digits=6) in page
    assert f"ε = {rounded_up(sum(alone))} at δ = 2e-05" in page


def test_every_epsilon_is_at_one_delta(tmp_path: Path) -> None:
    """The smallest of the plans', or the one that is asked for: else they cannot be compared."""
    one = finished_run(tmp_path / "one")
    two = finished_run(tmp_path / "two", plan=replace(PLAN, target_delta=1e-4))
    for asked, stated in ((None, 1e-5), (1e-6, 1e-6)):
        document = reported(one, two, delta=asked)
        rows = rows_of(document)
        priced = rounded_up(epsilon(event=PLAN.event(), delta=stated).epsilon)
        assert [rows["one"][0], rows["two"][0]] == [priced, priced]


def test_one_void_run_voids_them_together(tmp_path: Path) -> None:
    """The headline names it, and no total is stated."""
    bad = finished_run(tmp_path / "bad", notes=[FIXED_SEED])
    document = reported(finished_run(tmp_path / "good"), bad)
    assert document.verdict.standing == "broken"
    assert "bad" in document.verdict.headline
    assert "ε =" not in document.verdict.headline
    assert any(FIXED_SEED[1] in reason for reason in document.verdict.reasons)
    assert rows_of(document)["bad"][0] == "NOT private"


def test_what_qualifies_one_stands_beside_the_total(tmp_path: Path) -> None:
    """With the name of the run of which it is said."""
    noted = finished_run(tmp_path / "noted", notes=[LOGGED])
    verdict = reported(finished_run(tmp_path / "plain"), noted).verdict
    assert verdict.standing == "qualified"
    assert f"noted: {LOGGED[1]}" in verdict.reasons


def test_runs_of_different_units_have_no_total(tmp_path: Path) -> None:
    """No one promise covers them; each is told by itself."""
    patients = finished_run(tmp_path / "patients", plan=replace(PLAN, unit="patient"))
    verdict = reported(finished_run(tmp_path / "rows"), patients).verdict
    assert verdict.standing == "unclaimed"
    assert "No one promise" in verdict.headline
    assert "differ in unit" in verdict.reasons[0]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By the folder above; one named twice is refused."""
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    same = [finished_run(tmp_path / parent / "run") for parent in ("a", "b")]
    assert [*rows_of(reported(*same))] == ["a/run", "b/run"]
    with pytest.raises(ConfigurationError, match="named twice"):
        reported(same[0], same[0])
