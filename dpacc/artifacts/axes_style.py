"""How a figure looks: labels, grid, ticks, levels, values beside bars, what ε means beneath."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from dpacc_accounting.guarantee import Note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#333333", "#DDDDDD"
"""Of words, and of lines behind what is drawn."""

FEDERATED, ALONE, POOLED = "#0072B2", "#D55E00", "#009E73"
"""Of ways to train; three of Okabe and Ito's colours, told apart by every kind of eye."""


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


def draw_level(axes: Axes, *, words: str, level: float, colour: str) -> None:
    """A dashed line across the figure, and above its left end what it is.

    Args:
        axes: of the figure.
        words: what is said.
        level: where the line lies on the y axis.
        colour: of both.
    """
    axes.axhline(level, color=colour, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        words,
        (0, level),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=9,
        color=colour,
    )


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


def beneath(notes: Iterable[Note], *, width: int = 80) -> str:
    """What voids or qualifies ε, as lines for the foot of a figure; nothing where nothing does.

    >>> beneath([Note("whitening", "whitened by public notes")])
    '\\nε is qualified: whitened by public notes'
    """
    each = tuple(dict.fromkeys(notes))
    words = {
        "NOT private": "; ".join(note.text for note in each if note.voids),
        "ε is qualified": "; ".join(note.text for note in each if not note.voids),
    }
    return "".join(
        "\n" + textwrap.fill(f"{how}: {said}", width=width) for how, said in words.items() if said
    )
