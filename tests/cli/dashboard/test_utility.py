"""Privacy-utility curves: by the ledger, or not at all where a file flatters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dpacc_accounting.guarantee import Note

from dpacc.artifacts.progress_chart import Measurement
from dpacc.cli.dashboard.listed_runs import RunList
from dpacc.cli.dashboard.one_run import RunView, run_view
from dpacc.cli.dashboard.places import find_places
from dpacc.cli.dashboard.utility import (
    course_of_run,
    ends_table,
    in_words,
    saved_course,
    shared_metrics,
)
from dpacc.federated.monitoring import Course
from dpacc.federated.monitoring.utility_monitor import NOTE
from tests.cli.dashboard.folders import BUDGETED, course, going_on
from tests.cli.report.folders import FIXED_SEED


def viewed(folder: Path) -> RunView:
    (place,) = find_places(paths=[folder]).runs
    found = run_view(RunList().one(place))
    assert isinstance(found, RunView)
    return found


def test_a_run_is_placed_by_its_ledger(tmp_path: Path) -> None:
    """Quality after a step stands beside the price of the releases until then, whatever a file of
    measurements says of ε; a long course is thinned, and keeps its ends.
    """
    going_on(tmp_path / "run").close()
    view = viewed(tmp_path / "run")
    lies = tuple(replace(each, epsilon=0.01) for each in view.measured)
    found = course_of_run(replace(view, measured=lies))
    expected = [BUDGETED.guarantee(steps=step).epsilon for step in (1, 2, 3)]
    assert [each.epsilon for each in found.points] == expected
    assert [each.metrics["perplexity"] for each in found.points] == [90.0, 89.0, 88.0]
    assert found.guarantee == view.claim
    start = Measurement(step=0, epsilon=0.0, quality=99.0)
    long = course_of_run(replace(view, measured=(start, *lies * 20)))
    assert len(long.points) == 13
    assert [long.points[0].epsilon, long.points[-1].epsilon] == [0.0, expected[-1]]


def test_what_is_void_has_no_place_in_a_curve(tmp_path: Path) -> None:
    """Nor a row with an ε, and the reason stands beside."""
    with going_on(tmp_path / "run") as book:
        book.note(subject=FIXED_SEED[0], text=FIXED_SEED[1])
    found = course_of_run(viewed(tmp_path / "run"))
    assert "no ε may be claimed" in in_words([found], metric="perplexity")
    table = ends_table([found], metric="perplexity")
    assert table.rows[0][1] == "none holds"
    assert FIXED_SEED[1] in table.caption


def test_a_saved_course_is_held_against_the_ledger_beside_it(tmp_path: Path) -> None:
    """As it was recorded; one that says less of any step, or means ε otherwise, is refused."""
    going_on(tmp_path / "run").close()
    true = saved_course(course(tmp_path / "run/true.course.json"))
    assert isinstance(true, Course)
    assert shared_metrics([true]) == ["accuracy", "perplexity"]
    less = saved_course(course(tmp_path / "run/less.course.json", flattered=0.9))
    assert isinstance(less, str)
    assert less.startswith("after step 1 it says")
    text = (tmp_path / "run/true.course.json").read_text()
    (tmp_path / "run/other.course.json").write_text(text.replace('"example"', '"client"'))
    other = saved_course(tmp_path / "run/other.course.json")
    assert other == "it states ε at another δ, adjacency or unit than the ledger beside it"
    assert isinstance(saved_course(course(tmp_path / "alone.course.json", flattered=0.9)), Course)


def test_what_was_computed_from_private_data_is_not_shown(tmp_path: Path) -> None:
    """A monitor that looked at it says so in every ε; neither is what is no course."""
    path = course(tmp_path / "a.course.json", notes=[Note(NOTE, "loss was recorded")])
    found = saved_course(path)
    assert isinstance(found, str)
    assert "private data without noise" in found
    path.write_text("[]")
    assert saved_course(path) == f"{path} holds no course of a run"
