"""An audit drawn: how far present and absent canaries lie apart, and what that proves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from dpacc_accounting.guarantee import rounded_down

from dpacc.artifacts.axes_style import INK, beneath, dress, say_beside
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.audit.verdict import Audit
from dpacc.audit.wording import bounds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by every kind of eye.
_PRESENT, _ABSENT, _CLAIM = "#D55E00", "#0072B2", "#333333"
_BINS = 40


def draw_audit(*, audit: Audit, form: Format = "png") -> bytes:
    """Histograms of both kinds of canaries above the bounds on ε and the claim."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), dpi=160, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    _draw_scores(above, audit)
    _draw_bounds(below, audit)
    return encoded(figure, form=form)


def _draw_scores(axes: Axes, audit: Audit) -> None:
    low, high = np.quantile(audit.scores, [0.002, 0.998])
    bins = np.linspace(low, high if high > low else low + 1, _BINS).tolist()
    for kind, words, colour in (
        (~audit.included, "left out", _ABSENT),
        (audit.included, "in the data", _PRESENT),
    ):
        label = f"{int(kind.sum()):,} {words}"
        axes.hist(audit.scores[kind], bins=bins, color=colour, alpha=0.55, label=label)
    axes.set_title(
        f"{audit.guesses.canaries:,} canaries: {audit.guesses.correct:,} of "
        f"{audit.guesses.made:,} guesses right",
        fontsize=13,
        color=INK,
        loc="left",
    )
    axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    dress(axes, x="score", y="canaries", grid="y")


def _draw_bounds(axes: Axes, audit: Audit) -> None:
    bounds = bounds_of(audit)
    words = [words for words, _ in bounds]
    values = [value for _, value in bounds]
    axes.barh(words, values, height=0.5, color=_PRESENT)
    for place, value in enumerate(values):
        say_beside(axes, words=rounded_down(value), place=place, length=value, colour=_PRESENT)
    axes.axvline(audit.claim.epsilon, color=_CLAIM, linewidth=1.5, linestyle=(0, (5, 4)))
    axes.set_xlim(0, 1.12 * max([*values, audit.claim.epsilon]))
    axes.invert_yaxis()
    axes.set_title(
        f"claimed ε = {audit.claim.epsilon:.4g} (dashed) "
        + ("is refuted" if audit.refuted else "is not refuted"),
        fontsize=13,
        color=INK,
        loc="left",
    )
    sure = f"{100 * audit.confidence:.10g}% confidence"
    stated = f"δ = {audit.claim.delta:g}, {audit.claim.adjacency}, {audit.claim.unit}"
    label = f"ε at least, at {stated}, with {sure}{beneath(audit.notes)}"
    dress(axes, x=label, y="", grid="x")
