"""Points of a run, what more ε brought, and runs side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import Adjacency, Guarantee
from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring import Course, compare
from dpacc.federated.monitoring.course import Point
from dpacc.federated.monitoring.curve import draw_curve, stated_beneath
from dpacc.federated.monitoring.live_curve import live_curve

LOGGED = Note("non-private-metrics", "losses were logged")


def spent(epsilon: float, **changes: Any) -> Guarantee:
    given: dict[str, Any] = {"delta": 1e-5, "unit": "example", "method": "pld", "slack": 0.0}
    given |= {"adjacency": Adjacency.ADD_OR_REMOVE}
    return Guarantee(epsilon=epsilon, **{**given, **changes})


def course(name: str, *values: tuple[float, float], metric: str = "accuracy", **how: Any) -> Course:
    points = [
        Point(step=step, guarantee=spent(at, **how) if at else None, metrics={metric: value})
        for step, (at, value) in enumerate(values)
    ]
    return Course(name=name, points=points)


def test_gains_are_differences_and_rise_where_the_metric_should_fall() -> None:
    """A perplexity from 20 to 10 over two units of ε is a gain of 5 each."""
    (gain,) = course("a", (0.0, 20.0), (2.0, 10.0), metric="perplexity").marginal_gains(
        "perplexity"
    )
    assert (gain.step, gain.epsilon, gain.value) == (1, 2.0, 5.0)


def test_no_gain_is_told_without_a_difference_of_two_finite_epsilons() -> None:
    """Measured twice at one ε, at a void ε, or where a quality is not a number."""
    found = course("a", (1.0, 0.5), (1.0, 0.6), (math.inf, 0.7), (2.0, math.nan), (3.0, 0.9))
    (gain,) = found.marginal_gains("accuracy")
    assert gain.value == pytest.approx(0.2)


def test_a_course_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With every note, an infinite ε, and a quality that is no number; for its owner alone."""
    written = course("a", (0.0, 0.5), (1.0, math.inf), notes=(LOGGED,))
    written.points.append(
        Point(step=9, guarantee=spent(2.0, notes=(Note("fixed-seed", "seed 7"),)), metrics={})
    )
    written.save(tmp_path / "course.json")
    assert Course.read(tmp_path / "course.json") == written
    assert (tmp_path / "course.json").stat().st_mode & 0o077 == 0
    assert written.guarantee is not None
    assert written.guarantee.epsilon == math.inf
    assert [note.subject for note in written.guarantee.notes] == [
        "fixed-seed",
        "non-private-metrics",
    ]


def test_what_is_no_course_is_refused(tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "other.json").write_text('{"points": [1]}')
    with pytest.raises(ConfigurationError, match="holds no course"):
        Course.read(tmp_path / "other.json")


@pytest.mark.parametrize(
    "how", [{"delta": 1e-6}, {"unit": "owner"}, {"adjacency": Adjacency.REPLACE_ONE}], ids=str
)
def test_runs_whose_epsilons_mean_different_things_are_not_compared(how: dict[str, Any]) -> None:
    """Not in a table, nor in a picture, nor in a browser."""
    both = [course("a", (1.0, 0.5)), course("b", (1.0, 0.6), **how)]
    for show in (compare, draw_curve, live_curve):
        ask: Any = {"courses": both, "metric": "accuracy"} if show is not compare else None
        with pytest.raises(ConfigurationError, match="cannot be compared"):
            show(**ask) if ask else compare(both, metric="accuracy")


def test_the_best_comes_first() -> None:
    """Of accuracy the largest, of perplexity the smallest."""
    runs = [course("a", (0.0, 0.5), (1.0, 0.6)), course("b", (1.0, 0.8))]
    assert [each.name for each in compare(runs, metric="accuracy")] == ["b", "a"]
    fell = [course(n, (1.0, v), metric="perplexity") for n, v in (("a", 9.0), ("b", 7.0))]
    assert [each.name for each in compare(fell, metric="perplexity")] == ["b", "a"]
    first = compare(runs, metric="accuracy")[1]
    assert (first.start, first.end, first.last_gain) == (0.5, 0.6, pytest.approx(0.1))


def test_pictures_say_what_epsilon_means_and_what_qualifies_it() -> None:
    """δ, adjacency, unit, method and notes; as PNG, SVG and for a browser, with names escaped."""
    hostile = course("<b>$x$</b>", (0.0, 0.5), (1.0, 0.6), notes=(LOGGED,))
    other = course("plain", (1.0, 0.7))
    said = stated_beneath([hostile, other])
    assert "ε at δ = 1e-05, add-or-remove, unit: example, PLD" in said
    assert "<b>$x$</b>: losses were logged" in said
    for form, begin in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        drawn = draw_curve(courses=[hostile, other], metric="accuracy", form=form)  # type: ignore[arg-type]
        assert drawn.startswith(begin)
    figure = live_curve(courses=[hostile, other], metric="accuracy")
    assert figure.data[0].name == "&lt;b&gt;$x$&lt;/b&gt;"
    assert "losses were logged" in figure.layout.xaxis.title.text
    assert list(figure.data[0].x) == [0.0, 1.0]


def test_a_void_epsilon_has_no_place_and_says_why() -> None:
    """No curve is drawn of a run that a fixed seed made public."""
    void = course("a", (1.0, 0.6), notes=(Note("fixed-seed", "the fixed seed 7"),))
    assert "NOT private: the fixed seed 7" in stated_beneath([void])
    assert list(live_curve(courses=[void], metric="accuracy").data[0].x) == []


def test_a_metric_that_was_never_measured_is_named_with_those_that_were() -> None:
    """So that a typo is seen at once."""
    with pytest.raises(ConfigurationError, match=r"'f1'; it measured accuracy"):
        course("a", (1.0, 0.5)).marginal_gains("f1")
