"""Draw what hospitals gain: F1 by round, and each hospital's alone and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from dpacc_accounting import FederatedGuarantee
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import (
    ALONE,
    FEDERATED,
    GRID,
    INK,
    POOLED,
    beneath,
    draw_level,
    dress,
)
from dpacc.artifacts.figure_files import encoded
from dpacc.federated.healthcare.comparison import difference
from dpacc.federated.server.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OPEN = "#CC79A7"  # one more of Okabe and Ito's


@dataclass(frozen=True, kw_only=True)
class HospitalGain:
    """One hospital's F1 on its own held-out notes.

    Args:
        name: the hospital's.
        epsilon: all that it spent.
        alone: of a model that it trained alone, for the same ε.
        federated: of the shared model.
    """

    name: str
    epsilon: float
    alone: float
    federated: float


def draw_gains(
    *,
    history: History,
    guarantee: FederatedGuarantee,
    gains: Sequence[HospitalGain],
    levels: Mapping[str, float],
) -> bytes:
    """Mean F1 by round with others' levels, and each hospital's gain by its ε; a PNG.

    Args:
        history: the federation's.
        guarantee: what is claimed of it: δ, neighbours, unit, and what voids or qualifies ε.
        gains: of every hospital.
        levels: mean F1 of other ways to train, by what they are called; at most two.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 5.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_rounds(left, history, gains, levels)
    _draw_hospitals(right, gains, guarantee)
    figure.legend(
        *right.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )
    return encoded(figure, form="png")


def _draw_rounds(
    axes: Axes, history: History, gains: Sequence[HospitalGain], levels: Mapping[str, float]
) -> None:
    reached = [history.start_quality, *(each.quality for each in history.rounds)]
    values = [100 * mean(each.values()) for each in reached]
    axes.plot(range(len(values)), values, color=FEDERATED, linewidth=2, marker="o", markersize=5)
    axes.annotate(
        f"{values[-1]:.1f}%",
        (len(values) - 1, values[-1]),
        xytext=(0, -18),
        textcoords="offset points",
        ha="center",
        fontsize=10,
        color=FEDERATED,
    )
    lines = {"each alone": mean(each.alone for each in gains), **levels}
    for (name, level), colour in zip(lines.items(), (ALONE, POOLED, _OPEN), strict=False):
        words = f"{name} {100 * level:.1f}%"
        draw_level(axes, words=words, level=100 * level, colour=colour)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.set_title("Federated, mean of all hospitals", fontsize=12, color=INK, loc="left")
    dress(axes, x="rounds", y="F1 of entities in held-out notes, %", tick_size=9)


def _draw_hospitals(
    axes: Axes, gains: Sequence[HospitalGain], guarantee: FederatedGuarantee
) -> None:
    ranked = sorted(gains, key=lambda each: (float(_shown(each.epsilon)), each.name), reverse=True)
    places = range(len(ranked))
    alone = [100 * each.alone for each in ranked]
    federated = [100 * each.federated for each in ranked]
    axes.hlines(places, alone, federated, color=GRID, linewidth=3, zorder=1)
    axes.scatter(alone, places, color=ALONE, s=30, zorder=2, label="alone", marker="D")
    axes.scatter(federated, places, color=FEDERATED, s=34, zorder=3, label="federated")
    names = [f"{each.name}, ε = {_shown(each.epsilon)}" for each in ranked]
    axes.set_yticks(places, names)
    axes.set_title(f"Each hospital's own notes{_gained(gains)}", fontsize=12, color=INK, loc="left")
    stated = guarantee.worst_server.server
    at = f"F1, %\nε at δ = {rounded_up(stated.delta)}, {stated.adjacency}, unit: {stated.unit}"
    dress(
        axes, x=f"{at}, Poisson samples{beneath(guarantee.told, width=60)}", y="", grid="x",
        tick_size=8,
    )  # fmt: skip


def _gained(gains: Sequence[HospitalGain]) -> str:
    """What sharing adds on average, with its standard error, where there are two or more."""
    if len(gains) < 2:
        return ""
    alone = {each.name: 100 * each.alone for each in gains}
    found = difference(alone, {each.name: 100 * each.federated for each in gains})
    return f": {found.mean:+.1f} ± {found.error:.1f} points"


def _shown(epsilon: float) -> str:
    return rounded_up(epsilon, digits=2)
