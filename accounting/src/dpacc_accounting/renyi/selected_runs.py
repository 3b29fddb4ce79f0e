"""Rényi divergence of the best of a random number of runs.

With ε(α) of one run, m runs on average and γ, η of their negative binomial law, for every β >= 1

    ε′(α) <= ε(α) + ln m/(α − 1) + (1 + η)·((1 − 1/β)·ε(β) + ln(1/γ)/β)

and of a Poisson number of runs, δ being that of one run,

    ε′(α) <= ε(α) + ln m/(α − 1) + m·δ(ln(α/(α − 1)))

Where no loss of one run exceeds ε(∞), nothing is lost beyond it, and β may be infinite. Divergences
grow with their order, so that ε′ at any larger one is a bound too: near 1, after many runs, a far
tighter one.

Source: Papernot & Steinke 2022 (arXiv 2110.03620), theorems 2 and 6; van Erven & Harremoës 2014
(arXiv 1206.2459), theorem 3, for growing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dpacc_accounting.events.event import Selected
from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.selection import halting_chance

# Where the best order is sought at first; moments of whole orders are finite sums.
_ABOVE_ONE: Array = np.append(np.geomspace(1e-3, 15, 60), np.geomspace(20, 20_000, 40).round())
_WHOLE_FROM = 300.0
_FINER = 3


def selected_divergences(
    *, event: Selected, once: Callable[[Array], Array], largest: float, orders: Array
) -> Array:
    """ε′(α) at each of `orders`, from above.

    Args:
        event: what is selected, and from how many runs.
        once: ε(α) of one run, from above, at each of many orders.
        largest: a bound on the loss of one run, its ε(∞); infinite where there is none.
        orders: α > 1.

    >>> from dpacc_accounting import Gaussian
    >>> search = Selected(event=Gaussian(noise_multiplier=2.0), mean_runs=1, shape=1)
    >>> selected_divergences(event=search, once=lambda orders: orders / 8,
    ...                      largest=math.inf, orders=np.array([2.0])).round(6).tolist()
    [0.25]
    """
    if event.mean_runs == 1 and math.isfinite(event.shape):
        return once(orders)
    grid = 1 + _ABOVE_ONE
    runs = once(grid)
    if math.isfinite(event.shape):
        price = (1 + event.shape) * min(_least_second(event, once, grid, runs), largest)

    def bound(at: Array, divergences: Array) -> Array:
        grown = divergences + math.log(event.mean_runs) / (at - 1)
        if math.isfinite(event.shape):
            return np.asarray(grown + price)
        lost = [_delta_at(math.log(order / (order - 1)), grid, runs, largest) for order in at]
        return np.asarray(grown + event.mean_runs * np.array(lost))

    found = bound(orders, once(orders))
    larger, values = grid, bound(grid, runs)
    for _ in range(_FINER):
        least, order = float(values.min()), float(larger[np.argmin(values)])
        found = np.where(orders <= order, np.minimum(found, least), found)
        larger = _around(larger, values)
        values = bound(larger, once(larger))
    for order, value in zip(grid, bound(grid, runs), strict=True):
        found = np.where(orders <= order, np.minimum(found, value), found)
    return np.asarray(found)


def _least_second(
    event: Selected, once: Callable[[Array], Array], orders: Array, runs: Array
) -> float:
    """The least `(1 − 1/β)·ε(β) + ln(1/γ)/β`; ln(1/γ) itself is that of β = 1."""
    stop = -math.log(halting_chance(event=event))
    least = stop
    for _ in range(_FINER):
        values = (1 - 1 / orders) * runs + stop / orders
        least = min(least, float(values.min()))
        orders = _around(orders, values)
        runs = once(orders)
    return least


def _around(orders: Array, values: Array) -> Array:
    """Finer orders around the best one."""
    best = int(np.argmin(values))
    low, high = orders[max(best - 1, 0)], orders[min(best + 1, len(orders) - 1)]
    finer = 1 + np.geomspace(low - 1, high - 1, 16)
    return np.unique(np.where(finer > 1 + _WHOLE_FROM, np.round(finer), finer))


def _delta_at(epsilon: float, orders: Array, runs: Array, largest: float) -> float:
    """δ of one run at `epsilon`, the best over the orders; of none beyond its largest loss."""
    if epsilon >= largest:
        return 0.0
    told = -math.expm1(epsilon - largest) / (1 + math.exp(-largest))
    exponents = (orders - 1) * (runs - epsilon) - np.log(orders - 1)
    found = math.exp(min(float((exponents + orders * np.log1p(-1 / orders)).min()), 0.0))
    return min(found, told)
