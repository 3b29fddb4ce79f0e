"""Draw the table of ranks in docs/utility.md, with what one run on so few sentences can say.

    python benchmarks/utility_chart.py

The figures are those that the page records. `utility.py ranks --picture` draws new ones alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Path(__file__).resolve().parents[1] / "docs/utility.md"
PICTURE = PAGE.with_name("utility_ranks.png")
GUESSING = 50.0
"""Percent of right answers among two words that a coin gives: where the axis begins."""

_LINES = {
    "lora": ("LoRA", "LoRA: A and B learn", "#0072B2", "o"),
    "ffa": ("FFA-LoRA", "FFA-LoRA: B alone learns", "#D55E00", "s"),
}
"""By method: its row on the page, words, colour and mark."""

_INK, _SOFT, _GRID = "#333333", "#777777", "#DDDDDD"


def standard_error(*, percent: float, sentences: int) -> float:
    """Of a share of right answers among so many sentences, in points: 100·√(p(1 − p)/n).

    >>> round(standard_error(percent=80.0, sentences=1600), 3)
    1.0
    """
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / sentences)


def recorded(page: str) -> tuple[list[int], dict[str, list[float]], float, int]:
    """Ranks, accuracies by method, the untrained model's, and how many sentences told them."""
    section = page.split("## Rank\n")[1].split("\n## ")[0]
    (head,) = re.findall(r"^\| rank \|(.*)\|$", section, re.M)
    ranks = [int(cell) for cell in head.split("|")]
    found = {}
    for method, (row, *_) in _LINES.items():
        (cells,) = re.findall(rf"^\| {row}(?: \(.*?\))? \|(.*)\|$", section, re.M)
        found[method] = [float(cell.split("%")[0]) for cell in cells.split("|")]
    (untrained,) = re.findall(r"Untrained\s+accuracy there is ([\d.]+)%", page)
    (sentences,) = re.findall(r"([\d,]+) others choose settings \(validation\)", page)
    return ranks, found, float(untrained), int(sentences.replace(",", ""))


def ranks_figure(
    *,
    ranks: Sequence[int],
    accuracies: Mapping[str, Sequence[float]],
    untrained: float,
    sentences: int,
) -> Figure:
    """Accuracy against rank, a line for each method, from guessing upwards.

    Args:
        ranks: along the axis.
        accuracies: percent at each rank, by method.
        untrained: percent without any training.
        sentences: how many told them; bars are ± one standard error over so many.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    for (method, values), shift in zip(accuracies.items(), (0.97, 1.03), strict=True):
        _, words, colour, mark = _LINES[method]
        axes.errorbar(
            [rank * shift for rank in ranks],
            values,
            yerr=[standard_error(percent=value, sentences=sentences) for value in values],
            color=colour,
            linewidth=2,
            marker=mark,
            capsize=4,
            label=words,
        )
    label = f"untrained: {untrained:.1f}%"
    axes.axhline(untrained, color=_SOFT, linewidth=1.5, linestyle=(0, (5, 4)), label=label)
    axes.set_ylim(GUESSING, 90)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    under = (
        f"bars: ± one standard error over {sentences:,} sentences; one run each\n"
        "the axis begins at guessing, 50%"
    )
    axes.set_xlabel(f"rank\n{under}", fontsize=11, color=_INK)
    axes.set_ylabel("accuracy at ε = 8, %", fontsize=11, color=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=10, loc="lower right")
    return figure


def write(figure: Figure, path: Path) -> None:
    """Store it as a PNG."""
    figure.savefig(path, format="png", facecolor="white")


@click.command()
@click.argument("picture", type=click.Path(path_type=Path), default=PICTURE)
def main(picture: Path) -> None:
    """Draw PICTURE, by default the page's own, from the table on the page."""
    ranks, accuracies, untrained, sentences = recorded(PAGE.read_text(encoding="utf-8"))
    write(
        ranks_figure(ranks=ranks, accuracies=accuracies, untrained=untrained, sentences=sentences),
        picture,
    )


if __name__ == "__main__":
    main()
