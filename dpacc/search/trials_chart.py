"""Draw how good trials came out: held-out quality against the settings that were varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from dpacc.artifacts.axes_style import INK, dress
from dpacc.artifacts.figure_files import Format, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by every kind of eye; marks for who sees none.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKS = ("o", "s", "^", "D", "v", "P")


def draw_trials(
    *,
    trials: Sequence[Mapping[str, Any]],
    varied: Sequence[str],
    metric: str,
    form: Format = "png",
) -> bytes:
    """`metric` along the first varied setting.

    The second has a line for each of its values, all others a panel for each combination.

    Args:
        trials: each with its value of every varied setting, and of `metric`; one that diverged
            leaves a gap.
        varied: names of settings, at least one.
        metric: "accuracy", shown in percent, or "perplexity".
        form: what the bytes are.
    """
    from matplotlib.figure import Figure

    trials = [{**each, **{name: str(each[name]) for name in varied}} for each in trials]
    axis, by, others = varied[0], varied[1:2], varied[2:]
    panels = list(product(*(_values(trials, name) for name in others)))
    figure = Figure(figsize=(3.2 + 4.0 * len(panels), 4.2), dpi=160, layout="constrained")
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(drawn, panels, strict=True):
        fixed = dict(zip(others, panel, strict=True))
        shown = [each for each in trials if all(each[n] == v for n, v in fixed.items())]
        _draw_lines(axes, shown, axis=axis, by=by, metric=metric)
        title = ", ".join(f"{_spoken(name)} = {value}" for name, value in fixed.items())
        axes.set_title(title, fontsize=12, color=INK, loc="left")
        dress(axes, x=_spoken(axis), y=_named(metric) if axes is drawn[0] else "")
    if by:
        drawn[-1].legend(frameon=False, fontsize=10, labelcolor=INK)
    return encoded(figure, form=form)


def _draw_lines(
    axes: Axes, trials: Sequence[Mapping[str, Any]], *, axis: str, by: Sequence[str], metric: str
) -> None:
    values = _values(trials, axis)
    places = _places(values)
    for at, chosen in enumerate(_values(trials, by[0]) if by else [None]):
        line = {each[axis]: each[metric] for each in trials if not by or each[by[0]] == chosen}
        axes.plot(
            places,
            [_height(line.get(value, math.nan), metric) for value in values],
            color=_COLOURS[at % len(_COLOURS)],
            marker=_MARKS[at % len(_MARKS)],
            linewidth=2,
            markersize=6,
            label=f"{_spoken(by[0])} = {chosen}" if by else None,
        )
    if _spans(places):
        axes.set_xscale("log")
    axes.set_xticks(places, [str(value) for value in values])
    axes.set_xticks([], minor=True)


def _values(trials: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The different values of a setting: numbers by size, words as they came."""
    found = [*dict.fromkeys(each[name] for each in trials)]
    return sorted(found, key=float) if all(map(_is_number, found)) else found


def _places(values: Sequence[str]) -> list[float]:
    if all(map(_is_number, values)):
        return [float(value) for value in values]
    return [float(at) for at in range(len(values))]


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _spans(places: Sequence[float]) -> bool:
    return min(places) > 0 and max(places) >= 8 * min(places)


def _height(value: float, metric: str) -> float:
    if not math.isfinite(value):
        return math.nan
    return 100 * value if metric == "accuracy" else value


def _named(metric: str) -> str:
    return "held-out accuracy, %" if metric == "accuracy" else f"held-out {metric}"


def _spoken(name: str) -> str:
    return {"epsilon": "ε", "delta": "δ"}.get(name, name.replace("_", " "))
