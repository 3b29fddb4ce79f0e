"""How the axes of a figure look: labels, grid and ticks, and a bar's value beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#333333", "#DDDDDD"
"""Of words, and of lines behind what is drawn."""


def dress(
    axes: Axes,
    *,
    x: str,
    y: str,
    grid: Literal["x", "y", "both"] = "y",
    y_colour: str = INK,
    tick_size: float = 10,
) -> None:
    """Label both axes, and leave of the frame only what is read by.

    Args:
        axes: of the figure.
        x: what is said beneath.
        y: what is said at the side.
        grid: across which axis its lines run.
        y_colour: of the words at the side.
        tick_size: of numbers, in points.
    """
    # Dollar signs in names and notes are no formulas.
    axes.set_xlabel(x, fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=11, color=y_colour, parse_math=False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=tick_size, colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def say_beside(
    axes: Axes, *, words: str, place: float, length: float, colour: str, size: float = 10
) -> None:
    """Words at the end of a bar.

    Args:
        axes: of the figure.
        words: what is said.
        place: where the bar lies on the y axis.
        length: how far it reaches on the x axis.
        colour: of the words.
        size: of the words, in points.
    """
    axes.annotate(
        words,
        (length, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=size,
        color=colour,
    )
