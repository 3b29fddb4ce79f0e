"""Integer noise that clients add themselves, under secure aggregation: Rényi divergence bounds.

Updates are clipped, divided by the granularity γ·C and rounded to integers; each client adds
integer noise of standard deviation σ·C/√h in the same units, h being the honest clients whose
noise is guaranteed. What the sum hides is priced by the noise that is in it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpacc_accounting.federation.rounds import Discretization, NoiseKind
from dpacc_accounting.guarantee import Adjacency

Array = NDArray[np.float64]

ORDERS: Array = np.unique(np.append(np.arange(2.0, 65.0), np.round(np.geomspace(64, 1024, 25))))
"""The integer Rényi orders α that are tried."""


def round_divergences(
    *,
    noise: NoiseKind,
    noise_multiplier: float,
    guaranteed: int,
    present: int,
    discretization: Discretization,
    sampling_rate: float = 1.0,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
) -> Array:
    """Rényi divergence of one round at each of `ORDERS`, from above.

    Args:
        noise: "discrete-gaussian" (arXiv 2102.06387, proposition 14) or "skellam"
            (arXiv 2110.04995, corollary 4.1).
        noise_multiplier: σ of the sum of the guaranteed honest clients' noise, over C.
        guaranteed: h, for which each client's noise is sized.
        present: honest clients whose noise is in this sum.
        discretization: dimension, granularity and rounding.
        sampling_rate: p of Poisson-sampled clients (Zhu & Wang 2019, theorem 6), under
            add-or-remove adjacency; no amplification is claimed under others.
        adjacency: under add-or-remove, an absent client sends an update of zeros, and its noise.

    >>> grid = Discretization(dimension=100, granularity=0.01)
    >>> bound = round_divergences(noise="skellam", noise_multiplier=1.0, guaranteed=10, present=10,
    ...                           discretization=grid)
    >>> round(float(bound[0]), 3)    # at α = 2, where the Gaussian has α/(2σ²) = 1
    1.013
    """
    if present < 1 or noise_multiplier == 0:
        return np.full_like(ORDERS, math.inf)
    share = noise_multiplier / discretization.granularity / math.sqrt(guaranteed)
    reach = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    l2 = reach * rounded_norm(discretization=discretization)
    bound = _skellam if noise == "skellam" else _discrete_gaussian
    whole = bound(np.arange(2.0, ORDERS[-1] + 1), l2, share, present, discretization.dimension)
    if sampling_rate < 1 and adjacency is Adjacency.ADD_OR_REMOVE:
        return np.array([_sampled(whole, sampling_rate, int(order)) for order in ORDERS])
    return np.asarray(whole[ORDERS.astype(int) - 2])


def rounded_norm(*, discretization: Discretization) -> float:
    """The largest L2 norm, in grid units, of an update of norm C once it is rounded.

    `min(1/γ + √d, √(1/γ² + d/4 + √(2 ln 1/β)·(1/γ + √d/2)))`: what conditional stochastic
    rounding allows (arXiv 2102.06387, definition 1).

    >>> round(rounded_norm(discretization=Discretization(dimension=1, granularity=0.1,
    ...                                                  rounding_bias=0.0)), 6)
    11.0
    """
    norm, root = 1 / discretization.granularity, math.sqrt(discretization.dimension)
    if discretization.rounding_bias == 0:
        return norm + root
    luck = math.sqrt(2 * math.log(1 / discretization.rounding_bias))
    return min(norm + root, math.sqrt(norm**2 + root**2 / 4 + luck * (norm + root / 2)))


def epsilon_at(*, divergences: Array, delta: float) -> float:
    """ε at `delta` from the composed divergences at `ORDERS` (arXiv 2004.00010, proposition 12)."""
    orders = ORDERS
    bounds = divergences + np.log1p(-1 / orders)
    bounds -= (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(float(bounds.min()), 0.0)


def _discrete_gaussian(orders: Array, l2: float, share: float, n: int, dimension: int) -> Array:
    """A sum of n discrete Gaussians is nearly one; τ bounds how nearly, in each coordinate."""
    k = np.arange(1.0, n)
    tau = 10 * float(np.exp(-2 * math.pi**2 * share**2 * k / (k + 1)).sum())
    scale, root = l2 / (share * math.sqrt(n)), math.sqrt(dimension)
    l1 = _l1(l2, dimension) / (share * math.sqrt(n))
    squares = min(scale**2 + 2 * l1 * tau + tau**2 * dimension, (scale + tau * root) ** 2)
    return np.minimum(orders / 2 * scale**2 + tau * dimension, orders / 2 * squares)


def _skellam(orders: Array, l2: float, share: float, n: int, dimension: int) -> Array:
    """A sum of Skellams is one: no more is lost to adding than to rounding."""
    variance, l1 = n * share**2, _l1(l2, dimension)
    fine = ((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    return orders * l2**2 / (2 * variance) + np.minimum(fine, 3 * l1 / (2 * variance))


def _l1(l2: float, dimension: int) -> float:
    """The L1 norm of an integer vector is at most √d·L2, and at most L2²."""
    return l2 * min(math.sqrt(dimension), l2)


def _sampled(whole: Array, p: float, order: int) -> float:
    """Divergence of any mechanism on a Poisson sample; `whole[k]` is the unsampled one at k + 2."""
    k = np.arange(2.0, order + 1.0)
    log_choose = np.cumsum(np.log((order - k + 1) / k)) + math.log(order)
    terms = log_choose + (order - k) * math.log1p(-p) + k * math.log(p)
    terms += (k - 1) * whole[: order - 1]
    terms[1:] += math.log(3)
    first = (order - 1) * math.log1p(-p) + math.log1p((order - 1) * p)
    amplified = float(np.logaddexp.reduce(np.append(terms, first))) / (order - 1)
    return min(amplified, float(whole[order - 2]))
