"""Figures show what they are given: both views, budgets, lines and the points that matter."""

import io
from dataclasses import replace

import numpy as np
import pytest
from dpacc_accounting import Adjacency, FederatedGuarantee, Guarantee
from dpacc_accounting.federation.guarantees import Price
from matplotlib import colors, image

from dpacc.artifacts.pictures import (
    draw_attack,
    draw_federation,
    draw_profile,
    draw_spending,
    draw_sweep,
)

SERVER, RELEASED, INK, GREEN = "#D55E00", "#0072B2", "#333333", "#009E73"


def _guarantee(epsilon: float, delta: float = 1e-6) -> Guarantee:
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        adjacency=Adjacency.ADD_OR_REMOVE,
        unit="patient",
        method="pld",
        slack=0.0,
    )


def _federation(clients: int, *, server: float = 2.0, budget: float | None = None) -> bytes:
    prices = tuple(
        Price(
            name=f"client {k}",
            server=_guarantee(server + k / 10),
            released=_guarantee(1.0 + k / 10),
            epsilon_budget=budget,
        )
        for k in range(clients)
    )
    found = FederatedGuarantee(level="example", prices=prices, overlaps=(), assumptions=())
    return draw_federation(found=found)


def _share(picture: bytes, colour: str) -> float:
    """How much of a picture has a colour, as a fraction."""
    pixels = image.imread(io.BytesIO(picture))[..., :3]
    away = np.abs(pixels - np.array(colors.to_rgb(colour))).max(axis=-1)
    return float((away < 0.02).mean())


def test_dollars_are_no_formulas() -> None:
    """A unit with two of them is drawn as it is spelled."""
    stated = replace(_guarantee(2.0), unit="$\\frac$")
    assert draw_spending(steps=[1, 2], epsilons=[1.0, 2.0], budget=None, guarantee=stated)


@pytest.mark.parametrize("clients", [1, 3, 16, 17, 200])
def test_both_views_are_drawn(clients: int) -> None:
    """Bars and distributions show the server's and the released view, each in its colour."""
    picture = _federation(clients)
    assert _share(picture, SERVER) > 1e-3
    assert _share(picture, RELEASED) > 1e-3


def test_longer_bars_cost_more() -> None:
    """A view with twice the ε of the other has about twice its colour."""
    picture = _federation(1, server=2.0)
    assert 1.6 < _share(picture, SERVER) / _share(picture, RELEASED) < 2.4


def test_views_that_coincide_are_one_line() -> None:
    """Where both views are the same, one line stands for both."""
    assert _share(_federation(200, server=1.0), SERVER) == 0


def test_no_guarantee_is_no_bar() -> None:
    """A view without a guarantee is said in words, not drawn as a number."""
    picture = _federation(3, server=float("inf"))
    assert 0 < _share(picture, SERVER) < 0.2 * _share(picture, RELEASED)


def test_budgets_are_marked() -> None:
    """A client's budget is a dark line across its bars."""
    assert _share(_federation(3, budget=5.0), INK) > 1.2 * _share(_federation(3), INK)


def test_a_sweep_has_a_line_for_each_value() -> None:
    """Three values of the second setting are three lines, whatever the order of the rows."""
    rows = [
        {"epsilon": e, "batch_size": b, "noise_multiplier": b / e}
        for b in (1, 2, 3)
        for e in (8, 1, 2, 4)
    ]
    picture = draw_sweep(rows=rows, axis="epsilon", by="batch_size")
    assert all(_share(picture, colour) > 1e-4 for colour in (SERVER, RELEASED, GREEN))
    assert picture == draw_sweep(
        rows=sorted(rows, key=lambda row: (row["batch_size"], row["epsilon"])),
        axis="epsilon",
        by="batch_size",
    )
    assert _share(draw_sweep(rows=rows[:4], axis="epsilon", by=None), SERVER) == 0


def test_spending_shows_its_budget() -> None:
    """The budget is a dark dashed line above the curve."""
    words = {"steps": [0, 5, 10], "epsilons": [0.0, 1.0, 1.5], "guarantee": _guarantee(1.5)}
    without = draw_spending(**words, budget=None)
    assert _share(draw_spending(**words, budget=2.0), INK) > 1.2 * _share(without, INK)
    assert _share(without, SERVER) > 1e-3


def test_curves_mark_what_is_stated() -> None:
    """The profile and the attack's bound are curves with the stated point in another colour."""
    curve = [_guarantee(e, 10 ** -(e + 1)) for e in range(8)]
    for picture in (
        draw_profile(curve=curve, stated=curve[5]),
        draw_attack(curve=curve, stated=curve[5]),
    ):
        assert _share(picture, RELEASED) > 1e-3
        assert 0 < _share(picture, SERVER) < 0.05
