"""Draw what a federation's privacy bought: each client's ε, and what sharing added to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpacc_accounting import FederatedGuarantee
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import ALONE, FEDERATED, INK, POOLED, beneath, draw_level, dress
from dpacc.artifacts.figure_files import encoded
from dpacc.federated.server.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Errors = Callable[[Mapping[str, float]], Mapping[str, float]]

_APART = 0.13
_BARS: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2.5}


@dataclass(frozen=True, kw_only=True)
class ClientUtility:
    """What one client has of the federation, on held-out text of its own kind.

    Args:
        name: the client's.
        epsilon: all that it spent.
        alone: balanced accuracy of a model that it trained alone, for the same ε.
        federated: balanced accuracy of the shared model.
        alone_error: standard error of the one.
        federated_error: and of the other.
    """

    name: str
    epsilon: float
    alone: float
    federated: float
    alone_error: float = 0.0
    federated_error: float = 0.0


def utilities_of(
    history: History,
    *,
    alone: Mapping[str, Mapping[str, float]],
    together: Mapping[str, float],
    kinds: Mapping[str, str],
    errors: Errors,
) -> list[ClientUtility]:
    """What each client has of the federation, on the kind of text that it holds.

    Args:
        history: the federation's.
        alone: what each client's own model finds, by kind.
        together: what the shared one finds.
        kinds: which kind each client holds.
        errors: the standard error of each kind's figure.
    """
    return [
        ClientUtility(
            name=name,
            epsilon=epsilon,
            alone=alone[name][kinds[name]],
            federated=together[kinds[name]],
            alone_error=errors(alone[name])[kinds[name]],
            federated_error=errors(together)[kinds[name]],
        )
        for name, epsilon in history.epsilons().items()
    ]


def draw_utility(
    *,
    history: History,
    guarantee: FederatedGuarantee,
    clients: Sequence[ClientUtility],
    pooled: Mapping[str, float],
    errors: Errors | None = None,
) -> bytes:
    """Held-out quality by round, and by client against its ε; a PNG.

    Args:
        history: the federation's.
        guarantee: what is claimed of it: δ, neighbours, unit, and what voids or qualifies ε.
        clients: each with what it would have had alone.
        pooled: what the same training of everything in one place finds, by kind.
        errors: the standard error of each kind's figure; by default none are drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.3), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_rounds(left, history, mean_of(pooled), errors or (lambda _: {}))
    _draw_clients(right, clients, guarantee)
    return encoded(figure, form="png")


def mean_of(quality: Mapping[str, float]) -> float:
    """Every kind counts alike."""
    return sum(quality.values()) / len(quality)


def error_of_mean(errors: Mapping[str, float]) -> float:
    """The standard error of the kinds' mean; 0 where none is known.

    >>> error_of_mean({"films": 0.03, "books": 0.04})
    0.025
    """
    return math.sqrt(sum(each**2 for each in errors.values())) / max(len(errors), 1)


def _draw_rounds(axes: Axes, history: History, pooled: float, errors: Errors) -> None:
    measured = [history.start_quality, *(each.quality for each in history.rounds)]
    reached = [mean_of(each) for each in measured]
    words = f"all sentences in one place {100 * pooled:.1f}%"
    draw_level(axes, words=words, level=100 * pooled, colour=POOLED)
    values = [100 * value for value in reached]
    axes.errorbar(
        range(len(values)),
        values,
        yerr=[100 * error_of_mean(errors(each)) for each in measured],
        color=FEDERATED,
        linewidth=2,
        marker="o",
        markersize=5,
        **_BARS,
    )
    axes.annotate(
        f"{values[-1]:.1f}%",
        (len(values) - 1, values[-1]),
        xytext=(-8, 4),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        color=FEDERATED,
    )
    axes.locator_params(axis="x", integer=True)
    axes.set_title("Federated, mean of all kinds", fontsize=12, color=INK, loc="left")
    dress(axes, x="rounds", y="held-out balanced accuracy, %", tick_size=9)


def _draw_clients(
    axes: Axes, clients: Sequence[ClientUtility], guarantee: FederatedGuarantee
) -> None:
    ranked = sorted(clients, key=lambda each: (float(_shown(each.epsilon)), each.name))
    # Side by side, so that equal figures are both seen.
    for label, color, shift in (("alone", ALONE, -_APART), ("federated", FEDERATED, _APART)):
        axes.errorbar(
            [place + shift for place in range(len(ranked))],
            [100 * getattr(each, label) for each in ranked],
            yerr=[100 * getattr(each, f"{label}_error") for each in ranked],
            color=color,
            label=label,
            linestyle="none",
            marker="o",
            markersize=6.5,
            **_BARS,
        )
    axes.set_xticks(
        range(len(ranked)), [f"ε = {_shown(each.epsilon)}\n{each.name}" for each in ranked]
    )
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="lower right")
    if any(each.alone_error or each.federated_error for each in ranked):
        axes.annotate(
            "bars: one standard error, binomial",
            (0, 0),
            xycoords="axes fraction",
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set_title("Each client's own kind, by its ε", fontsize=12, color=INK, loc="left")
    stated = guarantee.worst_server.server
    at = f"ε at δ = {rounded_up(stated.delta)}, {stated.adjacency}, {stated.unit}"
    dress(axes, x=f"{at}{beneath(guarantee.told, width=64)}", y="", tick_size=9)
    axes.tick_params(axis="x", labelsize=8)


def _shown(epsilon: float) -> str:
    return rounded_up(epsilon, digits=2)
