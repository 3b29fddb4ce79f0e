"""Synthetic texts drawn beside public ones: how long they are, and each figure of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpacc.artifacts.axes_style import INK, dress
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.artifacts.synthetic.likeness import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by every kind of eye.
_COLOURS = {"synthetic": "#D55E00", "held-out": "#0072B2"}
_BINS = 30


def draw_likeness(
    *,
    texts: Mapping[str, Sequence[Words]],
    figures: Mapping[str, Mapping[str, float]],
    form: Format = "png",
) -> bytes:
    """Shares of lengths above, and below those figures of both that lie between 0 and 1.

    Args:
        texts: the words of `synthetic` and `held-out` texts.
        figures: what was found of either, by name.
        form: of the file.
    """
    from matplotlib.figure import Figure

    shares = [name for name, value in figures["synthetic"].items() if 0 <= value <= 1]
    figure = Figure(figsize=(7.2, 3.4 + 0.4 * len(shares)), dpi=160, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 0.5 + 0.4 * len(shares)))
    _draw_lengths(above, texts)
    _draw_shares(below, shares, figures)
    return encoded(figure, form=form)


def _draw_lengths(axes: Axes, texts: Mapping[str, Sequence[Words]]) -> None:
    lengths = {name: [len(text) for text in each] for name, each in texts.items()}
    longest = float(np.quantile([n for each in lengths.values() for n in each], 0.995))
    width = math.ceil((longest + 1) / _BINS)  # of as many lengths in each, or bars alternate
    bins = np.arange(0, longest + 1 + width, width) - 0.5
    for name, counts in lengths.items():
        weights = [1 / len(counts)] * len(counts)
        axes.hist(
            counts,
            bins=bins.tolist(),
            weights=weights,
            color=_COLOURS[name],
            alpha=0.55,
            label=f"{len(counts):,} {name}, {np.mean(counts):.3g} words",
        )
    axes.margins(y=0.3)  # room for what the colours mean
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="upper right")
    dress(axes, x="words of a text", y="share of the texts", grid="both")


def _draw_shares(
    axes: Axes, names: Sequence[str], figures: Mapping[str, Mapping[str, float]]
) -> None:
    for name, colour in _COLOURS.items():
        places = [at for at, each in enumerate(names) if each in figures[name]]
        values = [figures[name][names[at]] for at in places]
        axes.scatter(values, places, color=colour, s=40, zorder=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    dress(axes, x="", y="", grid="both")
