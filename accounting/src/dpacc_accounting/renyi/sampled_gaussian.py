"""Rényi differential privacy of the sampled Gaussian: an independent, looser price.

Shares no numerics with `pld`, so that the two can check each other; its ε is never smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from dpacc_accounting.events.flattening import Release
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.dominating_pairs import Array

_FIRST_INTEGER = 20
_LARGEST_ORDER = 20_000
# A smaller shift costs no more.
_LEAST_SHIFT = 1e-100
_MOST_NODES = 100_000


def rdp_epsilon(*, counts: Mapping[Release, int], adjacency: Adjacency, delta: float) -> float:
    """An upper bound on ε at `delta`, the best over the Rényi orders α:

        ε = Σ n_i·ε_i(α) + ln((α − 1)/α) − (ln δ + ln α)/(α − 1)

    Source: Mironov, Talwar & Zhang 2019 (arXiv 1908.10530); the conversion is Canonne, Kamath &
    Steinke 2020 (arXiv 2004.00010), proposition 12.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> round(rdp_epsilon(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5), 4)
    2.1013
    """

    return epsilon_of_divergences(lambda orders: _composed(counts, adjacency, orders), delta=delta)


def epsilon_of_divergences(divergences: Callable[[Array], Array], *, delta: float) -> float:
    """An upper bound on ε at `delta` from ε(α), as in `rdp_epsilon`.

    >>> round(epsilon_of_divergences(lambda orders: orders / 2, delta=1e-5), 3)
    4.728
    """

    def bound(orders: Array) -> Array:
        spent = divergences(orders)
        return spent + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)

    return max(_least_over_orders(bound), 0.0)


def rdp_delta(*, counts: Mapping[Release, int], adjacency: Adjacency, epsilon: float) -> float:
    """An upper bound on δ at `epsilon`, the best over the Rényi orders α:

        δ = e^((α − 1)(Σ n_i·ε_i(α) − ε)) / (α − 1) · (1 − 1/α)^α

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> rdp_delta(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=2.1015) <= 1e-5
    True
    """

    return delta_of_divergences(
        lambda orders: _composed(counts, adjacency, orders), epsilon=epsilon
    )


def delta_of_divergences(divergences: Callable[[Array], Array], *, epsilon: float) -> float:
    """An upper bound on δ at `epsilon` from ε(α), as in `rdp_delta`.

    >>> delta_of_divergences(lambda orders: orders / 2, epsilon=4.73) <= 1e-5
    True
    """

    def log_bound(orders: Array) -> Array:
        gain = divergences(orders) - epsilon
        return (orders - 1) * gain - np.log(orders - 1) + orders * np.log1p(-1 / orders)

    return math.exp(min(_least_over_orders(log_bound), 0.0))


def renyi_divergence(*, release: Release, adjacency: Adjacency, order: float) -> float:
    """Rényi divergence of order α of one release, the larger of both directions.

    Args:
        release: a sampled Gaussian with positive noise.
        adjacency: which datasets are neighbours.
        order: α > 1.

    >>> round(renyi_divergence(release=Release(1.0, 2.0), adjacency=Adjacency.ADD_OR_REMOVE,
    ...                        order=3.0), 6)
    0.375
    """
    q, shift = release.probability, max(1 / release.noise_multiplier, _LEAST_SHIFT)
    replaced = adjacency is Adjacency.REPLACE_ONE
    if q == 1:
        return order * (shift * (2 if replaced else 1)) ** 2 / 2
    if replaced:
        return _log_moment_replaced(q, shift, order) / (order - 1)
    if order == int(order):
        return _log_moment_integer(q, shift, int(order)) / (order - 1)
    return _log_moment_fractional(q, shift, order) / (order - 1)


def _least_over_orders(bound: Callable[[Array], Array]) -> float:
    """The smallest bound over a coarse range of orders, then over finer ones around its best."""
    above_one = np.geomspace(0.005, _LARGEST_ORDER, 60)
    least = math.inf
    for _ in range(4):
        values = bound(_orders(above_one))
        best = int(np.argmin(values))
        least = min(least, float(values[best]))
        low, high = above_one[max(best - 1, 0)], above_one[min(best + 1, len(above_one) - 1)]
        above_one = np.geomspace(low, high, 12)
    return least


def _orders(above_one: Array) -> Array:
    """Large orders are rounded: their moments are then finite sums."""
    orders = 1 + above_one
    return np.where(orders > _FIRST_INTEGER, np.round(orders), orders)


def _composed(counts: Mapping[Release, int], adjacency: Adjacency, orders: Array) -> Array:
    total = np.zeros_like(orders)
    for release, count in counts.items():
        total += count * np.array(
            [renyi_divergence(release=release, adjacency=adjacency, order=a) for a in orders]
        )
    return total


def _log_moment_integer(q: float, shift: float, order: int) -> float:
    """`ln Σ_k C(α, k)(1 − q)^(α − k) q^k e^(k(k − 1)shift²/2)`, summed less 1."""
    k = np.arange(2.0, order + 1.0)
    log_binomial = np.cumsum(np.log((order - k + 1) / k)) + math.log(order)
    growth = k * (k - 1) * shift**2 / 2
    terms = log_binomial + (order - k) * math.log1p(-q) + k * math.log(q)
    # ln(e^g − 1), so that a moment close to 1 keeps its digits.
    terms += growth + np.log(-np.expm1(-growth))
    return _log_one_plus_sum(terms)


def _log_moment_fractional(q: float, shift: float, order: float) -> float:
    """`ln E_Q[(P/Q)^α]` by quadrature; the ratio less 1 has mean 0 and is subtracted."""
    z = _nodes(shift, order * shift)
    if len(z) == _MOST_NODES:
        return _log_moment_between(q, shift, order)
    exponent = shift * z - shift**2 / 2
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + exponent)
    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(z[1] - z[0])
    near = exponent < 30
    excess = q * np.expm1(exponent[near])
    growth = np.expm1(order * np.log1p(excess)) - order * excess
    small = float((np.exp(log_density[near]) * growth).sum())
    far = log_density[~near] + order * log_ratio[~near]
    return _log_one_plus_sum(np.append(far, math.log(max(small, 1e-300))))


def _log_moment_between(q: float, shift: float, order: float) -> float:
    """From above, by the chord between the whole orders around: the log of a moment is convex."""
    below = math.floor(order)
    share = order - below
    low = _log_moment_integer(q, shift, below) if below > 1 else 0.0
    return (1 - share) * low + share * _log_moment_integer(q, shift, below + 1)


def _log_moment_replaced(q: float, shift: float, order: float) -> float:
    """`ln ∫ P^α Q^(1 − α)` with P and Q mixtures to either side, by quadrature."""
    z = _nodes(shift, (2 * order - 1) * shift)
    if len(z) == _MOST_NODES:
        return math.inf
    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(z[1] - z[0])
    log_p = np.logaddexp(math.log1p(-q), math.log(q) + shift * z - shift**2 / 2)
    log_q = np.logaddexp(math.log1p(-q), math.log(q) - shift * z - shift**2 / 2)
    exponents = log_density + order * log_p + (1 - order) * log_q
    return float(np.logaddexp.reduce(exponents))


def _nodes(shift: float, peak: float) -> Array:
    low, high = -12.0, peak + 12.0
    count = math.ceil((high - low) * max(8.0, 4 * shift))
    return np.linspace(low, high, min(count, _MOST_NODES))


def _log_one_plus_sum(terms: Array) -> float:
    peak = float(terms.max(initial=-math.inf))
    if peak < -1:
        return math.log1p(float(np.exp(terms).sum()))
    return float(np.logaddexp(0.0, peak + math.log(float(np.exp(terms - peak).sum()))))
