"""All five pages, drawn by Streamlit's own test driver."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from dpacc_accounting.guarantee import rounded_up
from streamlit.testing.v1 import AppTest

from tests.cli.conftest import Run
from tests.cli.dashboard.folders import BUDGETED, course, going_on, spent
from tests.cli.report.folders import FIXED_SEED, finished_run

HOSTILE = "![x](http://elsewhere.example/x.png) <img src=//elsewhere.example> **b**"
_PATIENT = 300


def _app(paths: list[str], allowance: float) -> None:
    from dpacc.cli.dashboard.pages import show

    show(paths=paths, refresh=None, allowance=allowance)


def drawn(*paths: Path, allowance: float = math.inf, **asked: str) -> AppTest:
    """A page as it was drawn, without an exception."""
    words = {"paths": [str(each) for each in paths], "allowance": allowance}
    page = AppTest.from_function(_app, kwargs=words, default_timeout=_PATIENT)
    for name, value in asked.items():
        page.query_params[name] = value
    page.run()
    assert [each.value for each in page.exception] == []
    return page


def words_of(page: AppTest) -> str:
    """Its own HTML, without the style."""
    bodies = [each.proto.body for each in page.get("html")]
    return "\n".join(each for each in bodies if "<style>" not in each)


def test_all_runs_are_listed_with_what_they_spent(dpacc: Run, there: Path) -> None:
    """The same ε as `dpacc spend`; what voids a run stands in its row; bars of spent and left."""
    page = drawn(there / "runs")
    words = words_of(page)
    for name in ("fine", "torn"):
        assert f"<td>{spent(dpacc, there / 'runs' / name)}</td>" in words
    assert f"NOT private: {FIXED_SEED[1]}" in words
    assert "add-or-remove, one example, poisson sampling, PLD" in words
    assert "its last line is torn" in words
    assert "1 NOT private" in words
    (bars,) = page.get("plotly_chart")
    assert "fine spent" in bars.proto.alt
    assert "void" not in bars.proto.alt


def test_one_run_says_all_of_it(dpacc: Run, there: Path) -> None:
    """ε with δ, adjacency, unit, sampling and method; course, ledger, noise, attack, statement."""
    page = drawn(there / "runs", page="run", name="fine")
    words = words_of(page)
    assert f"<td>{spent(dpacc, there / 'runs/fine')} at δ = 1e-05</td>" in words
    for said in ("Neighbours: add-or-remove. Sampling: Poisson", "hash of its last line", "σC/B"):
        assert said in words
    assert [each.proto.alt.split()[0] for each in page.get("plotly_chart")] == [
        "A",
        "Quality",
        "An",
    ]
    assert page.code[0].value.startswith("# Privacy statement")
    said = dpacc("explain", there / "runs/fine").out
    assert page.code[0].value.strip() == said.strip()


def test_a_run_that_is_not_private_claims_nothing(there: Path) -> None:
    """Neither in words nor in a chart."""
    page = drawn(there / "runs", page="run", name="void")
    words = words_of(page)
    assert "NOT private: no ε may be claimed" in words
    assert FIXED_SEED[1] in words
    assert "keeps (ε" not in words
    assert len(page.get("plotly_chart")) == 0


def test_a_damaged_ledger_is_refused_by_line(there: Path) -> None:
    """As `dpacc spend` refuses it."""
    assert "line 3" in words_of(drawn(there / "runs", page="run", name="damaged"))


def test_a_run_that_trains_is_shown_as_it_goes_on(tmp_path: Path) -> None:
    """Drawn again after a step it has that step; what takes a processor waits to be asked for."""
    with going_on(tmp_path / "live") as book:
        page = drawn(tmp_path, page="run", name="live")
        assert "3 of 6 planned" in words_of(page)
        assert "So far this run keeps" in words_of(page)
        if Path("/proc/locks").exists():
            assert [each.value for each in page.toggle] == [False, False]
        book.charge(step=3, event=BUDGETED.charge(3))
        page.run()
        assert "4 of 6 planned" in words_of(page)
        now = rounded_up(BUDGETED.guarantee(steps=4).epsilon, digits=6)
        assert f"{now} at δ" in words_of(page)


def test_a_federation_is_shown_round_by_round(dpacc: Run, there: Path) -> None:
    """Each client's ε, by its own ledger as `dpacc spend` states it, and who was left out why."""
    page = drawn(there, page="federation")
    words = words_of(page)
    for name in ("films", "books"):
        assert words.count(f"<td>ε = {spent(dpacc, there / 'fed' / name)}</td>") >= 3
    for said in ("books: too far from the others", "late: it did not answer", "75% of steps"):
        assert said in words
    assert len(page.get("plotly_chart")) == 4


def test_a_budget_is_shown_as_its_command_shows_it(dpacc: Run, there: Path) -> None:
    """Total, spent, held and left."""
    page = drawn(there, page="budget")
    said = json.loads(dpacc("budget", "show", there / "notes/notes.budget.jsonl", "--json").out)
    words = words_of(page)
    for each in ("spent", "held"):
        assert f"<td>ε = {rounded_up(said[each]['epsilon'], digits=6)}</td>" in words
    assert "Left of ε = 4: ε = 2.268" in words
    assert "committed" in words
    assert "reserved" in words


def test_runs_and_saved_courses_are_compared_in_one_picture(there: Path) -> None:
    """What is chosen, by a quality that all have; ε of each, and its last gain; by the address."""
    course(there / "runs/fine/monitor.course.json")
    page = drawn(there, page="utility")
    assert [each.value for each in page.multiselect] == [["course runs/fine/monitor.course.json"]]
    assert page.selectbox(key="metric").options == ["accuracy", "perplexity"]
    (alone,) = page.get("plotly_chart")
    assert "from 0.5 at ε = 0" in alone.proto.alt
    page.multiselect(key="utility").select("run runs/fine").run()
    assert page.selectbox(key="metric").options == ["perplexity"]
    (both,) = page.get("plotly_chart")
    assert both.proto.alt.count("at ε =") == 4
    words = words_of(page)
    assert "add-or-remove, unit: example" in words
    page = drawn(there, page="utility", name="federation fed")
    assert "<td>0.75</td>" in words_of(page)


def test_courses_that_cannot_be_compared_are_refused(there: Path) -> None:
    """ε of another unit in one picture would be taken for the same."""
    path = course(there / "other.course.json")
    path.write_text(path.read_text().replace('"example"', '"client"'))
    page = drawn(there, page="utility", name="course other.course.json")
    page.multiselect(key="utility").select("run runs/fine").run()
    page.selectbox(key="metric").set_value("perplexity").run()
    assert "cannot be compared" in words_of(page)
    assert len(page.get("plotly_chart")) == 0


def test_words_from_files_never_become_markup(tmp_path: Path) -> None:
    """A folder's name, a unit and a note: as they are, escaped, on every page that says them."""
    plan = replace(BUDGETED, unit=HOSTILE)
    finished_run(tmp_path / "**b** <b>run", plan=plan, notes=[("odd", HOSTILE)])
    for asked in ({}, {"page": "run"}):
        page = drawn(tmp_path, **asked)
        assert "&lt;img src=//elsewhere.example&gt;" in words_of(page)
        assert "<img" not in words_of(page)
        assert all(HOSTILE not in each.value for each in page.markdown)
        charts = "".join(each.proto.spec for each in page.get("plotly_chart"))
        assert "<img" not in charts
        assert "<b>" not in charts


def test_quality_of_no_known_kind_is_not_drawn(tmp_path: Path) -> None:
    """Its name would be markup in a figure; neither is what is no number."""
    going_on(tmp_path / "run").close()
    rows = [{"step": at, "epsilon": 1.0, "quality": 1.0, "metric": HOSTILE} for at in (1, 2)]
    rows.append({"step": 3, "epsilon": 1.0, "quality": math.nan, "metric": "accuracy"})
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = drawn(tmp_path, page="run")
    assert "elsewhere" not in "".join(each.proto.spec for each in page.get("plotly_chart"))
    assert "held-out" not in words_of(page)


def test_a_page_of_nothing_says_what_to_name(tmp_path: Path) -> None:
    """Each of the five."""
    for asked, remedy in (
        ("runs", "ledger.jsonl"),
        ("run", "ledger.jsonl"),
        ("federation", "history.json"),
        ("budget", "budget.jsonl"),
        ("utility", "course.json"),
    ):
        assert remedy in words_of(drawn(tmp_path, page=asked))
