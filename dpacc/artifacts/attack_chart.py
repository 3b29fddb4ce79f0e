"""How many of those in the data an attacker recognises at most, for readers of no curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpacc_accounting.guarantee import rounded_up
from dpacc_accounting.ledger.claims import AttackBounds

from dpacc.artifacts.axes_style import INK, dress, say_beside
from dpacc.artifacts.figure_files import Format, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SOFT = "#8A8A8A"
_AT_MOST = "#D55E00"  # of Okabe and Ito's colours, told apart by every kind of eye


def draw_recognised(*, bounds: Sequence[AttackBounds], unit: str, form: Format = "png") -> bytes:
    """Bars, two for each rate of false accusations: the most that any attack finds, and guessing.

    Args:
        bounds: at each rate, rounded up where they are printed.
        unit: whose presence is guessed.
        form: of the file whose bytes are returned.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    axes = figure.subplots()
    for at, each in enumerate(bounds):
        most, guessed = as_percent(each.true_positives), 100 * each.false_positives
        found = f"at most {rounded_up(most, digits=3)}%"
        _bar(axes, at - 0.2, most, _AT_MOST, found, None if at else "any attack, at most")
        _bar(axes, at + 0.2, guessed, _SOFT, f"{guessed:g}%", None if at else "guessing")
    alarms = [f"{100 * each.false_positives:g}% of others accused" for each in bounds]
    axes.set_yticks(range(len(bounds)), alarms)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20), [f"{tick}%" for tick in range(0, 101, 20)])
    said = f"recognised, of the {unit}s that were used"
    dress(axes, x=said, y="", grid="x")
    axes.spines["bottom"].set_visible(False)
    where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, ncols=2, **where)
    return encoded(figure, form=form)


def as_percent(share: float) -> float:
    """Of a hundred, and never more: some bounds exceed 1.

    >>> as_percent(0.25), as_percent(1.5)
    (25.0, 100.0)
    """
    return min(100.0, 100 * share)


def _bar(
    axes: Axes, place: float, length: float, colour: str, words: str, label: str | None
) -> None:
    axes.barh([place], [length], height=0.36, color=colour, label=label)
    say_beside(axes, words=words, place=place, length=length, colour=INK)
