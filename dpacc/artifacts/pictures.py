"""Figures of what privacy costs: a federation, a sweep of settings, a run, an attack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from dpacc_accounting import FederatedGuarantee, Guarantee
from dpacc_accounting.attacks.tradeoff import detection_bound
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.axes_style import INK, beneath, dress, say_beside
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.artifacts.progress_chart import mark_budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by every kind of eye.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_SERVER, _RELEASED = "#D55E00", "#0072B2"
_SOFT = "#777777"
_MOST_BARS = 16


def draw_federation(*, found: FederatedGuarantee, form: Format = "png") -> bytes:
    """Each client's ε in both views: bars for a few, a distribution for many."""
    prices = [*found.prices, *found.overlaps]
    if len(prices) <= _MOST_BARS:
        return encoded(_federation_bars(found), form=form)
    return encoded(_federation_distribution(found), form=form)


def draw_sweep(
    *, rows: Sequence[Mapping[str, Any]], axis: str, by: str | None, form: Format = "png"
) -> bytes:
    """σ against `axis`, one line for each value of `by`."""
    figure, axes = _figure()
    for at, value in enumerate(_distinct(rows, by)):
        line = [row for row in rows if by is None or row[by] == value]
        line.sort(key=lambda row: row[axis])
        colour = _COLOURS[at % len(_COLOURS)]
        label = None if by is None else f"{_spoken(by)} {value:g}"
        axes.plot(
            [row[axis] for row in line],
            [row["noise_multiplier"] for row in line],
            color=colour,
            linewidth=2,
            marker="o",
            markersize=5,
            label=label,
        )
    if all(row[axis] > 0 for row in rows) and _spans(row[axis] for row in rows):
        _log_ticks(axes, sorted({row[axis] for row in rows}))
    if by is not None:
        axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    axes.set_title("The least noise that keeps the budget", fontsize=13, color=INK, loc="left")
    dress(axes, x=_spoken(axis), y="noise multiplier σ")
    return encoded(figure, form=form)


def draw_spending(
    *,
    steps: Sequence[int],
    epsilons: Sequence[float],
    budget: float | None,
    guarantee: Guarantee,
    form: Format = "png",
) -> bytes:
    """ε after each number of steps."""
    figure, axes = _figure()
    axes.plot(steps, epsilons, color=_SERVER, linewidth=2)
    axes.plot(steps[-1:], epsilons[-1:], color=_SERVER, marker="o", markersize=6, clip_on=False)
    axes.annotate(
        f"ε = {rounded_up(epsilons[-1])}",
        (steps[-1], epsilons[-1]),
        xytext=(-8, -16),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        color=_SERVER,
    )
    if budget is not None:
        mark_budget(axes, budget)
    axes.set_ylim(0, 1.15 * max([*epsilons, budget or 0.0]))
    axes.set_xlim(0, steps[-1])
    axes.set_title("Privacy spent", fontsize=13, color=INK, loc="left")
    _whole_ticks(axes)
    dress(
        axes,
        x=f"logical steps{beneath(guarantee.notes)}",
        y=f"ε at δ = {rounded_up(guarantee.delta)}, {guarantee.adjacency}, {guarantee.unit}",
    )
    return encoded(figure, form=form)


def draw_profile(*, curve: Sequence[Guarantee], stated: Guarantee, form: Format = "png") -> bytes:
    """δ against ε, and the point that is stated."""
    figure, axes = _figure()
    axes.plot(
        [each.epsilon for each in curve],
        [each.delta for each in curve],
        color=_RELEASED,
        linewidth=2,
    )
    axes.set_yscale("log")
    axes.plot([stated.epsilon], [stated.delta], color=_SERVER, marker="o", markersize=7)
    axes.annotate(
        f"({stated.epsilon:.4g}, {stated.delta:g})",
        (stated.epsilon, stated.delta),
        xytext=(9, 5),
        textcoords="offset points",
        fontsize=10,
        color=_SERVER,
    )
    axes.set_title("Privacy profile", fontsize=13, color=INK, loc="left")
    dress(axes, x=f"ε, {stated.adjacency}, {stated.unit}{beneath(stated.notes)}", y="δ")
    return encoded(figure, form=form)


def draw_attack(*, curve: Sequence[Guarantee], stated: Guarantee, form: Format = "png") -> bytes:
    """The most that any attack can achieve: true positives against false ones."""
    figure, axes = _figure(width=5.6, height=5.2)
    alphas = [10 ** (-4 + 4 * k / 200) for k in range(201)]
    best = [min(detection_bound(guarantee=g, false_alarms=a) for g in curve) for a in alphas]
    axes.fill_between(alphas, alphas, best, color=_RELEASED, alpha=0.12, linewidth=0)
    axes.plot(alphas, best, color=_RELEASED, linewidth=2, label="no attack lies above")
    axes.plot(alphas, alphas, color=_SOFT, linewidth=1.2, linestyle=(0, (5, 4)), label="guessing")
    percent = min(detection_bound(guarantee=each, false_alarms=0.01) for each in curve)
    axes.plot([0.01], [percent], color=_SERVER, marker="o", markersize=7)
    axes.annotate(
        f"{rounded_up(100 * percent, digits=2)}% found at 1% false alarms",
        (0.01, percent),
        xytext=(-8, 8),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        color=_SERVER,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1e-4, 1)
    axes.set_ylim(1e-4, 1.15)
    axes.set_title("What an attacker can achieve", fontsize=13, color=INK, loc="left")
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="lower right")
    dress(
        axes,
        x=f"false-positive rate{beneath(stated.notes)}",
        y=f"true-positive rate, presence of one {stated.unit}",
    )
    return encoded(figure, form=form)


def _federation_bars(found: FederatedGuarantee) -> Figure:
    prices = [*found.prices, *found.overlaps]
    figure, axes = _figure(height=1.5 + 0.55 * len(prices))
    for view, colour, offset in (("server", _SERVER, -0.19), ("released", _RELEASED, 0.19)):
        values = [getattr(price, view).epsilon for price in prices]
        shown = [value if math.isfinite(value) else 0.0 for value in values]
        places = [at + offset for at in range(len(prices))]
        words = {"server": "server's view", "released": "released models"}[view]
        axes.barh(places, shown, height=0.34, color=colour, label=words, zorder=2)
        for place, value, length in zip(places, values, shown, strict=True):
            text = rounded_up(value, digits=3) if math.isfinite(value) else "no guarantee"
            say_beside(axes, words=text, place=place, length=length, colour=colour, size=9)
    for at, price in enumerate(prices):
        if price.epsilon_budget is not None:
            label = None if axes.get_lines() else "budget"
            axes.plot([price.epsilon_budget] * 2, [at - 0.42, at + 0.42], color=INK, label=label)
    axes.set_yticks(range(len(prices)), [_named(price.name, price.count) for price in prices])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    _legend_above(axes)
    stated = prices[0].released
    title = "ε by client" if found.level == "example" else f"ε of one {stated.unit}"
    axes.set_title(title, fontsize=13, color=INK, loc="left")
    dress(axes, x=_stated(found), y="", grid="x")
    return figure


def _federation_distribution(found: FederatedGuarantee) -> Figure:
    figure, axes = _figure()
    same = all(price.server == price.released for price in found.prices)
    lines = [("released", _RELEASED, "both views" if same else "released models", 0.4)]
    if not same:
        lines.insert(0, ("server", _SERVER, "server's view", 0.5))
    for view, colour, words, height in lines:
        spent = sorted((getattr(price, view).epsilon, price.count) for price in found.prices)
        clients = sum(count for _, count in spent)
        shares = [100 * total / clients for total in accumulate(count for _, count in spent)]
        axes.step([e for e, _ in spent], shares, where="post", color=colour, lw=2, label=words)
        _mark(axes, getattr(getattr(found, f"worst_{view}"), view).epsilon, colour, height)
    finite = [e for p in found.prices for e in (p.server.epsilon, p.released.epsilon)]
    if 0 < 30 * min(finite) < max(finite) < math.inf:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 104)
    _legend_above(axes)
    clients = sum(price.count for price in found.prices)
    axes.set_title(f"ε of {clients:,} clients", fontsize=13, color=INK, loc="left")
    dress(
        axes,
        x=_stated(found),
        y="clients with at most this ε, %",
        grid="both",
    )
    return figure


def _mark(axes: Axes, worst: float, colour: str, height: float) -> None:
    if not math.isfinite(worst):
        return
    axes.axvline(worst, color=colour, linewidth=1, linestyle=(0, (1, 2)))
    axes.annotate(
        f"largest: {rounded_up(worst, digits=3)}",
        (worst, height),
        xycoords=("data", "axes fraction"),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        color=colour,
    )


def _legend_above(axes: Axes) -> None:
    axes.legend(
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        borderaxespad=0.2,
    )


def _named(name: str, count: int) -> str:
    return name if count == 1 else f"{name} (×{count:,})"


def _distinct(rows: Sequence[Mapping[str, Any]], by: str | None) -> list[Any]:
    return [None] if by is None else [*dict.fromkeys(row[by] for row in rows)]


def _spoken(name: str) -> str:
    return {"epsilon": "ε", "delta": "δ"}.get(name, name.replace("_", " "))


def _spans(values: Iterable[float]) -> bool:
    found = [*values]
    return max(found) >= 8 * min(found)


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks([*values], [f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _figure(*, width: float = 7.2, height: float = 4.2) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    return figure, figure.subplots()


def _stated(found: FederatedGuarantee) -> str:
    """Of what, and at which δ, a federation's ε is, and what voids or qualifies it."""
    stated = found.prices[0].released
    units = " or ".join(sorted({price.server.unit for price in found.prices}))
    return f"ε at δ = {stated.delta:g}, {stated.adjacency}, {units}{beneath(found.told)}"
