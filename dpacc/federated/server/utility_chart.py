"""Draw what a federation's privacy bought: each client's ε, and what sharing added to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpacc_accounting import FederatedGuarantee
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import GRID, INK, beneath, dress
from dpacc.artifacts.figure_files import encoded
from dpacc.federated.server.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Three of Okabe and Ito's colours, told apart by every kind of eye.
_FEDERATED, _ALONE, _POOLED = "#0072B2", "#D55E00", "#009E73"


@dataclass(frozen=True, kw_only=True)
class ClientUtility:
    """What one client has of the federation, on held-out text of its own kind.

    Args:
        name: the client's.
        epsilon: all that it spent.
        alone: balanced accuracy of a model that it trained alone, for the same ε.
        federated: balanced accuracy of the shared model.
    """

    name: str
    epsilon: float
    alone: float
    federated: float


def draw_utility(
    *,
    history: History,
    guarantee: FederatedGuarantee,
    clients: Sequence[ClientUtility],
    pooled: Mapping[str, float],
) -> bytes:
    """Held-out quality by round, and by client against its ε; a PNG.

    Args:
        history: the federation's.
        guarantee: what is claimed of it: δ, neighbours, unit, and what voids or qualifies ε.
        clients: each with what it would have had alone.
        pooled: what the same training of everything in one place finds, by kind.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.3), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_rounds(left, history, mean_of(pooled))
    _draw_clients(right, clients, guarantee)
    return encoded(figure, form="png")


def mean_of(quality: Mapping[str, float]) -> float:
    """Every kind counts alike."""
    return sum(quality.values()) / len(quality)


def _draw_rounds(axes: Axes, history: History, pooled: float) -> None:
    reached = [mean_of(history.start_quality), *(mean_of(r.quality) for r in history.rounds)]
    axes.axhline(100 * pooled, color=_POOLED, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        f"all sentences in one place {100 * pooled:.1f}%",
        (0, 100 * pooled),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=9,
        color=_POOLED,
    )
    values = [100 * value for value in reached]
    axes.plot(range(len(values)), values, color=_FEDERATED, linewidth=2, marker="o", markersize=5)
    axes.annotate(
        f"{values[-1]:.1f}%",
        (len(values) - 1, values[-1]),
        xytext=(0, -15),
        textcoords="offset points",
        ha="center",
        fontsize=10,
        color=_FEDERATED,
    )
    axes.locator_params(axis="x", integer=True)
    axes.set_title("Federated, mean of all kinds", fontsize=12, color=INK, loc="left")
    dress(axes, x="rounds", y="held-out balanced accuracy, %", tick_size=9)


def _draw_clients(
    axes: Axes, clients: Sequence[ClientUtility], guarantee: FederatedGuarantee
) -> None:
    ranked = sorted(clients, key=lambda each: (float(_shown(each.epsilon)), each.name))
    places = range(len(ranked))
    alone = [100 * each.alone for each in ranked]
    federated = [100 * each.federated for each in ranked]
    axes.vlines(places, alone, federated, color=GRID, linewidth=3, zorder=1)
    axes.scatter(places, alone, color=_ALONE, s=44, zorder=2, label="alone")
    axes.scatter(places, federated, color=_FEDERATED, s=44, zorder=3, label="federated")
    axes.set_xticks(places, [f"ε = {_shown(each.epsilon)}\n{each.name}" for each in ranked])
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="lower right")
    axes.set_title("Each client's own kind, by its ε", fontsize=12, color=INK, loc="left")
    stated = guarantee.worst_server.server
    at = f"ε at δ = {rounded_up(stated.delta)}, {stated.adjacency}, {stated.unit}"
    dress(axes, x=f"{at}{beneath(guarantee.told, width=64)}", y="", tick_size=9)
    axes.tick_params(axis="x", labelsize=8)


def _shown(epsilon: float) -> str:
    return rounded_up(epsilon, digits=2)
