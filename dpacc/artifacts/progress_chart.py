"""Draw what a run spent and what it bought: ε and held-out quality against steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import INK, beneath, draw_level, dress
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.recipe.settings import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Two of Okabe and Ito's colours, told apart by every kind of eye.
_SPENT, _LEARNED = "#D55E00", "#0072B2"
_MOST_MARKERS = 40


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Where a run stood after `step` steps.

    `epsilon` is what it had spent; `quality` is the `metric` of the held-out data, None when it was
    not measured then.
    """

    step: int
    epsilon: float
    quality: float | None = None
    metric: Metric = "perplexity"

    @property
    def shown(self) -> str:
        """The quality in the digits that tell something.

        >>> Measurement(step=1, epsilon=0.1, quality=0.8, metric="accuracy").shown
        '80.0%'
        >>> Measurement(step=1, epsilon=0.1, quality=1.4).shown
        '1.400'
        """
        value = math.nan if self.quality is None else self.quality
        if self.metric != "perplexity":
            return f"{value:.1%}"
        # A perplexity among few answers is between 1 and their number.
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def draw_progress(
    *,
    measurements: Sequence[Measurement],
    target_epsilon: float | None,
    title: str,
    guarantee: Guarantee,
    form: Format = "png",
) -> bytes:
    """Draw ε, with its budget, above held-out quality, where it was measured.

    Args:
        measurements: in order of steps; those without a finite ε are left out.
        target_epsilon: the budget, if there is one.
        title: the run's.
        guarantee: what is claimed of the run: δ, neighbours, unit, and what voids or qualifies ε.
        form: of the file whose bytes are returned.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    measurements = [each for each in measurements if math.isfinite(each.epsilon)]
    measured = [
        each
        for each in measurements
        if math.isfinite(math.inf if each.quality is None else each.quality)
    ]
    panels = 2 if measured else 1
    figure = Figure(
        figsize=(7.2, 2.9 * panels + 0.3),
        dpi=160,
        layout=ConstrainedLayoutEngine(h_pad=0.08, hspace=0.08),
    )
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    # Dollar signs in names and notes are no formulas.
    figure.suptitle(title, fontsize=13, color=INK, parse_math=False)
    _draw_spending(axes[0], measurements, target_epsilon, guarantee)
    if measured:
        _draw_quality(axes[1], measured)
    figure.align_ylabels()
    said = beneath(guarantee.notes)
    axes[-1].set_xlabel(f"logical steps{said}", fontsize=11, color=INK, parse_math=False)
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return encoded(figure, form=form)


def mark_budget(axes: Axes, budget: float) -> None:
    """Draw a dashed line at the ε that may be spent, and name it."""
    draw_level(axes, words=f"budget ε = {budget:g}", level=budget, colour=INK)


def _draw_spending(
    axes: Axes, measurements: Sequence[Measurement], target: float | None, guarantee: Guarantee
) -> None:
    steps, spent = [m.step for m in measurements], [m.epsilon for m in measurements]
    _draw_line(axes, steps, spent, _SPENT)
    top = max([*spent, target or 0.0], default=0.0)
    if target is not None:
        mark_budget(axes, target)
    axes.set_ylim(0, top * 1.2 or 1)
    what = f"δ = {rounded_up(guarantee.delta)}, {guarantee.adjacency},\n{guarantee.unit}"
    dress(axes, x="", y=f"privacy spent (ε)\n{what}", y_colour=_SPENT)


def _draw_quality(axes: Axes, measured: Sequence[Measurement]) -> None:
    steps, values = [m.step for m in measured], [float(m.quality or 0) for m in measured]
    _draw_line(axes, steps, values, _LEARNED)
    axes.margins(y=0.22)
    for position in {0, len(values) - 1}:
        axes.annotate(
            measured[position].shown,
            (steps[position], values[position]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=10,
            color=_LEARNED,
        )
    dress(axes, x="", y=f"held-out {measured[0].metric}", y_colour=_LEARNED)


def _draw_line(axes: Axes, steps: Sequence[int], values: Sequence[float], colour: str) -> None:
    marker = "o" if len(steps) <= _MOST_MARKERS else ""
    style: dict[str, Any] = {
        "linewidth": 2,
        "marker": marker,
        "markersize": 5,
        "clip_on": False,
        "zorder": 3,
    }
    axes.plot(steps, values, color=colour, **style)
