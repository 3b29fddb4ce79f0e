"""Draw what a budget of gradient evaluations buys: the noise that is left, by batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpacc_accounting import BatchRecommendation
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import INK, dress
from dpacc.artifacts.figure_files import Format, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of Okabe and Ito's colours, told apart by every kind of eye.
_INDEPENDENT, _BANDED, _MARKED = "#0072B2", "#009E73", "#D55E00"
_SOFT = "#777777"


def draw_recommendation(
    *, found: BatchRecommendation, evaluations: int, form: Format = "png"
) -> bytes:
    """Effective noise over that of a single release, without and with correlation, and the knee.

    A dotted line is what twice the compute would leave: the knee is where it comes close.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), dpi=160, layout="constrained")
    axes: Axes = figure.subplots()
    sizes, unit = [each.batch_size for each in found.choices], found.single_release
    banded = [each.banded / unit for each in found.choices]
    independent = [each.independent / unit for each in found.choices]
    doubled = [left * (1 - each.doubling) for left, each in zip(banded, found.choices, strict=True)]
    axes.axhline(1.0, color=_SOFT, linewidth=1, linestyle=(0, (5, 4)))
    axes.plot(
        sizes, independent, color=_INDEPENDENT, marker="o", linewidth=2, label="independent noise"
    )
    axes.plot(sizes, banded, color=_BANDED, marker="s", linewidth=2, label="correlated noise")
    axes.plot(
        sizes, doubled, color=_BANDED, linewidth=1.2, linestyle=":", label="twice the compute"
    )
    _mark(axes, found)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [each for each in found.choices if each.batch_size & (each.batch_size - 1) == 0]
    ticks = ticks or [*found.choices]
    axes.set_xticks(
        [each.batch_size for each in ticks],
        [f"{each.batch_size:,}\n{each.steps:,}" for each in ticks],
    )
    axes.set_xticks([], minor=True)
    highest = max(independent)
    marks = [mark for mark in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500) if mark < 1.2 * highest]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.set_yticks([], minor=True)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    axes.set_title(
        f"What {evaluations:,} gradient evaluations buy", fontsize=13, color=INK, loc="left"
    )
    stated = found.calibration.calibration.guarantee
    dress(
        axes,
        x=f"expected batch size, and steps below it\nε = {rounded_up(stated.epsilon)} at "
        f"δ = {rounded_up(stated.delta)}, {stated.adjacency}, {stated.unit}",
        y="effective noise / that of one release of all",
    )
    return encoded(figure, form=form)


def _mark(axes: Axes, found: BatchRecommendation) -> None:
    """The choice that is recommended."""
    chosen = found.chosen
    height = (chosen.banded if chosen.pays else chosen.independent) / found.single_release
    axes.plot(
        [chosen.batch_size],
        [height],
        color=_MARKED,
        marker="o",
        markersize=11,
        fillstyle="none",
        markeredgewidth=2,
    )
    words = "knee" if found.knee else "no knee within this budget"
    axes.annotate(
        f"{words}: {chosen.steps:,} steps of {chosen.batch_size:,}",
        (chosen.batch_size, height),
        xytext=(0, 14),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=10,
        color=_MARKED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )
