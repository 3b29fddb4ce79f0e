"""A federation's page: every client's ε, what it gave, and who took part unless that is secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dpacc_accounting import Ledger

from dpacc.artifacts.document.html_page import fragment
from dpacc.cli.dashboard.charts import took_part
from dpacc.cli.dashboard.listed_runs import RunList
from dpacc.cli.dashboard.one_federation import (
    FederationView,
    client_table,
    contribution,
    federation_view,
    round_blocks,
    verdict,
)
from dpacc.cli.dashboard.places import Place
from dpacc.cli.dashboard.utility import MEAN, course_of_federation
from tests.cli.dashboard.folders import federation
from tests.cli.report.folders import FIXED_SEED, PLAN


def viewed(folder: Path) -> FederationView:
    found = federation_view(place=Place(name=folder.name, path=folder), runs=RunList())
    assert isinstance(found, FederationView), found
    return found


def test_a_federation_is_shown_while_it_goes_on_and_after(tmp_path: Path) -> None:
    """By its server's state, then by its history: the same ε, and who gave how much."""
    live = viewed(federation(tmp_path / "live", state=True, rounds=2))
    ended = viewed(federation(tmp_path / "ended", rounds=2))
    assert live.found == ended.found
    spent = {price.name: price.server.epsilon for price in live.found.prices}
    assert spent["films"] == PLAN.guarantee(steps=4).epsilon
    assert contribution(live, "films") == "2 of 2 rounds, 80% of steps"
    assert contribution(live, "books") == "1 of 2 rounds, 20% of steps"
    assert live.told[-1] == spent["films"]
    assert [*live.told] == sorted(live.told)
    assert "too far from the others" in fragment(round_blocks(live))
    chart = took_part(live)
    assert chart is not None
    assert [[*bar.y] for bar in chart.figure.data] == [[2, 1], [0, 1], [1, 1]]
    course = course_of_federation(live)
    assert [each.epsilon for each in course.points] == [*live.told]
    assert [each.metrics[MEAN] for each in course.points] == pytest.approx([0.6, 0.675])


def test_a_ledger_of_more_than_the_rounds_tell_breaks_it(tmp_path: Path) -> None:
    """And so does one that is not private; each stands beside what the rounds say."""
    folder = federation(tmp_path / "fed", own={"films": 6, "books": 3})
    assert verdict(viewed(folder)).standing == "holds"
    with Ledger.open(path=folder / "books/ledger.jsonl", plan=PLAN.to_json()) as book:
        book.charge(step=3, event=PLAN.charge(3))
    found = verdict(viewed(folder))
    assert found.standing == "broken"
    assert "books: its ledger charges" in found.reasons[0]
    with Ledger.open(path=folder / "films/ledger.jsonl", plan=PLAN.to_json()) as book:
        book.note(subject=FIXED_SEED[0], text=FIXED_SEED[1])
    void = viewed(folder)
    assert "none holds" in fragment([client_table(void)])
    assert f"films: its ledger says that it is NOT private: {FIXED_SEED[1]}" in void.contradictions


def test_who_took_part_is_not_shown_where_that_is_the_secret(tmp_path: Path) -> None:
    """Under privacy of whole clients no name, count or book of a round is read into the page."""
    folder = federation(tmp_path / "fed")
    history = json.loads((folder / "history.json").read_text())
    history["client_level"] = {
        "level": "client",
        "delta": 1e-6,
        "rounds": 50,
        "sampling": "poisson",
        "sampling_rate": 0.01,
        "noise_multiplier": 1.0,
    }
    (folder / "history.json").write_text(json.dumps(history))
    view = viewed(folder)
    assert (view.secret, view.rounds, view.told) == (True, (), ())
    assert took_part(view) is None
    assert course_of_federation(view).points == []
    page = fragment([verdict(view), client_table(view), *round_blocks(view)])
    assert "films" not in page
    assert "secret of the server" in page


def test_what_is_damaged_is_said_in_a_line(tmp_path: Path) -> None:
    """A history that is cut short, or is none, is no page of zeros."""
    folder = federation(tmp_path / "fed")
    quality = (folder / "history.json").read_text().replace('"books": 0.55}', '"books": "x"}')
    for damaged in (
        '{"rounds": [',
        "[]",
        '{"history": 3}',
        quality,
        '{"history": {"rounds": [3]}}',
    ):
        (folder / "history.json").write_text(damaged)
        found = federation_view(place=Place(name="fed", path=folder), runs=RunList())
        assert isinstance(found, str)
        assert "cannot be read" in found
