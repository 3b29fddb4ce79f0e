"""The privacy-utility curve for a browser: a Plotly figure, as the dashboard shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring.course import Course, placed
from dpacc.federated.monitoring.curve import COLOURS, require_drawable, stated_beneath

if TYPE_CHECKING:
    import plotly.graph_objects as go


def live_curve(*, courses: Sequence[Course], metric: str) -> go.Figure:
    """Quality against ε, one line a run, with step, ε and quality of each point.

    Names are escaped: Plotly reads a few tags.

    Args:
        courses: the runs.
        metric: that all of them measured.

    Raises:
        ConfigurationError: Plotly is not installed, or they cannot be shown in one picture.
    """
    try:
        import plotly.graph_objects as go
    except ModuleNotFoundError:
        raise ConfigurationError(
            "a figure for a browser needs plotly: pip install 'dpacc[dashboard]', or draw a .png"
        ) from None
    require_drawable(courses)
    figure = go.Figure()
    for course, colour in zip(courses, COLOURS, strict=False):
        points = placed(course, metric)
        figure.add_scatter(
            x=[point.epsilon for point in points],
            y=[point.metrics[metric] for point in points],
            customdata=[point.step for point in points],
            name=escape(course.name),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate="after %{customdata}: %{y} at ε = %{x:.4g}<extra></extra>",
        )
    said = escape(stated_beneath(courses)).replace("\n", "<br>")
    figure.update_layout(
        template="plotly_white",
        showlegend=len(courses) > 1,
        xaxis={"title": {"text": said}, "rangemode": "tozero"},
        yaxis={"title": {"text": escape(metric)}},
    )
    return figure
