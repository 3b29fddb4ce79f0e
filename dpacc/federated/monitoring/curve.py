"""The privacy-utility curve as a picture: quality against ε, and what each further ε brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import METHOD_NAMES, Note, rounded_up

from dpacc.artifacts.axes_style import GRID, INK, beneath, dress
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring.course import Course, placed, require_comparable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by every kind of eye."""

MARKERS = ("o", "s", "^", "D", "v", "P")


def draw_curve(*, courses: Sequence[Course], metric: str, form: Format = "png") -> bytes:
    """Quality against ε, one line a run, above the marginal gain per ε.

    Points whose ε a note voids have no place; the note stands beneath.

    Args:
        courses: the runs.
        metric: that all of them measured.
        form: of the file whose bytes are returned.

    Raises:
        ConfigurationError: δ, adjacency or unit differ, a run never measured it, or there are more
            runs than can be told apart.
    """
    from matplotlib.figure import Figure

    require_drawable(courses)
    figure = Figure(figsize=(7.2, 6.4), dpi=160, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for course, colour, marker in zip(courses, COLOURS, MARKERS, strict=False):
        _draw_quality(upper, course, metric, colour, marker)
        _draw_gains(lower, course, metric, colour, marker)
    dress(upper, x="", y=metric)
    dress(lower, x=stated_beneath(courses), y=f"gain in {metric}\nper further ε")
    lower.axhline(0, color=GRID, linewidth=1.4, zorder=1)
    lower.set_xlim(left=0)
    if len(courses) > 1:
        upper.legend(frameon=False, fontsize=10, labelcolor=INK)
    else:
        upper.set_title(courses[0].name, fontsize=12, color=INK, loc="left", parse_math=False)
    return encoded(figure, form=form)


def require_drawable(courses: Sequence[Course]) -> None:
    """See that these can be shown in one picture.

    Raises:
        ConfigurationError: their ε mean different things, or they are too many.
    """
    require_comparable(courses)
    if len(courses) > len(COLOURS):
        raise ConfigurationError(
            f"{len(courses)} runs in one picture cannot be told apart: give {len(COLOURS)} at most"
        )


def stated_beneath(courses: Sequence[Course]) -> str:
    """What ε means in these runs, and what voids or qualifies it in any."""
    stated = [(course.name, g) for course in courses if (g := course.guarantee) is not None]
    if not stated:
        return "ε: nothing was spent"
    first: Guarantee = stated[0][1]
    methods = dict.fromkeys(METHOD_NAMES.get(g.method, g.method) for _, g in stated)
    several = len(courses) > 1
    notes = [
        Note(note.subject, f"{name}: {note.text}" if several else note.text)
        for name, each in stated
        for note in each.notes
    ]
    at = f"ε at δ = {rounded_up(first.delta)}, {first.adjacency}, unit: {first.unit}"
    return f"{at}, {', '.join(methods)}{beneath(notes)}"


def _draw_quality(axes: Axes, course: Course, metric: str, colour: str, marker: str) -> None:
    points = placed(course, metric)
    axes.plot(
        [point.epsilon for point in points],
        [point.metrics[metric] for point in points],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=2,
        label=course.name.replace("$", r"\$"),
    )


def _draw_gains(axes: Axes, course: Course, metric: str, colour: str, marker: str) -> None:
    gains = course.marginal_gains(metric)
    axes.plot(
        [each.epsilon for each in gains],
        [each.value for each in gains],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=0,
    )
