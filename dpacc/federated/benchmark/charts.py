"""Pictures of a benchmark: what each ε bought in each way, and which client held what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dpacc.artifacts.axes_style import ALONE, FEDERATED, GRID, INK, POOLED, beneath, dress
from dpacc.artifacts.figure_files import Format, encoded
from dpacc.federated.benchmark.data_sets import DataSet
from dpacc.federated.benchmark.kept_cells import Found
from dpacc.federated.benchmark.outcomes import Series, as_percent, meaning, notes_of, series_of
from dpacc.federated.benchmark.partitions import Shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Mapping[str, str] = {"central": POOLED, "local": ALONE, "federated": FEDERATED}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Okabe and Ito's colours, told apart by every kind of eye.
_OF_VALUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_OTHERS = "#BBBBBB"


def draw_outcomes(results: Sequence[Found], *, form: Format = "svg") -> bytes:
    """Held-out quality against ε, with its standard error; side by side where values are alike.

    Args:
        results: of one model and one data set.
        form: of the file whose bytes are returned.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    lines = series_of(results)
    epsilons = sorted({epsilon for line in lines for epsilon in line.points})
    for turn, line in enumerate(lines):
        _draw_series(axes, line, epsilons, shift=(turn - (len(lines) - 1) / 2) * 0.6 / len(lines))
    scale = as_percent(results[0])
    axes.axhline(scale * float(results[0]["start"]), color=GRID, linewidth=1.6, zorder=0)
    axes.annotate(
        "before training",
        (0.0, scale * float(results[0]["start"])),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=9,
        color=INK,
    )
    axes.set_xticks(range(len(epsilons)), [f"ε = {epsilon:g}" for epsilon in epsilons])
    axes.set_xlim(-0.5, len(epsilons) - 0.5)
    named, words = axes.get_legend_handles_labels()
    place = {"loc": "outside upper center", "ncols": 3}
    figure.legend(named, words, frameon=False, fontsize=9, labelcolor=INK, **place)
    unit = ", %" if scale == 100 else ""
    said = f"{meaning(results)}{beneath(notes_of(results))}"
    dress(axes, x=said, y=f"held-out {results[0]['metric']}{unit}")
    return encoded(figure, form=form)


def _draw_series(axes: Axes, line: Series, epsilons: Sequence[float], *, shift: float) -> None:
    places = [epsilons.index(epsilon) + shift for epsilon in line.points]
    values = [value for value, _ in line.points.values()]
    errors = [error for _, error in line.points.values()]
    axes.errorbar(
        places,
        values,
        yerr=errors,
        color=_COLOURS[line.way],
        marker=_MARKERS[line.rank % len(_MARKERS)],
        markersize=6,
        linewidth=1,
        linestyle=(0, (1, 3)),
        elinewidth=1.4,
        capsize=2.5,
        label=line.name,
    )


def draw_holdings(data: DataSet, dealings: Mapping[int, Shares], *, form: Format = "svg") -> bytes:
    """How many records of each label or kind each client holds, for each number of clients.

    Args:
        data: the records.
        dealings: shares by number of clients.
        form: of the file whose bytes are returned.
    """
    from matplotlib.figure import Figure

    field = data.label_field if data.labels and not data.words_field else data.kind_field
    values = [str(record.get(field, "record")) if field else "record" for record in data.train]
    shown = [value for value, _ in Counter(values).most_common(len(_OF_VALUES))]
    figure = Figure(figsize=(7.6, 3.4), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(dealings), sharey=True, squeeze=False)[0]
    for axes, (clients, shares) in zip(panels, dealings.items(), strict=True):
        _draw_shares(axes, shares, values, shown)
        axes.set_xticks(range(clients), [str(number) for number in range(1, clients + 1)])
        first = axes is panels[0]
        dress(axes, x=f"client, of {clients}", y="records" if first else "", tick_size=9)
    named, words = panels[0].get_legend_handles_labels()
    place = {"loc": "outside upper center", "ncols": len(words)}
    figure.legend(named, words, frameon=False, fontsize=9, labelcolor=INK, **place)
    return encoded(figure, form=form)


def _draw_shares(axes: Axes, shares: Shares, values: Sequence[str], shown: Sequence[str]) -> None:
    counts = [Counter(values[at] for at in share) for share in shares]
    beneath_it = [0] * len(shares)
    others = [sum(count.values()) - sum(count[value] for value in shown) for count in counts]
    columns = [(value, [count[value] for count in counts]) for value in shown]
    if any(others):
        columns.append(("others", others))
    for (value, heights), colour in zip(columns, (*_OF_VALUES, _OTHERS), strict=False):
        axes.bar(
            range(len(shares)),
            heights,
            bottom=beneath_it,
            color=_OTHERS if value == "others" else colour,
            width=0.75,
            edgecolor="white",
            linewidth=0.6,
            label=value.replace("$", r"\$"),
        )
        beneath_it = [low + height for low, height in zip(beneath_it, heights, strict=True)]
