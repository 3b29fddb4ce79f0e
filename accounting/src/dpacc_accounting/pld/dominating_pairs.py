"""The two output laws that an adversary must tell apart, for one sampled Gaussian release.

Outputs are in units of the noise, so every component is a unit normal, and `shift` is the
distance 1/σ by which one unit moves the sum:

    P = (1 − p)·N(0, 1) + p·N(shift, 1)        Q = (1 − r)·N(0, 1) + r·N(−shift, 1)

Add-or-remove adjacency has two pairs, (p, r) = (q, 0) and (0, q); replace-one has (q, q). The
privacy loss `ln dP/dQ` increases with the output in all three.

Zero-out has the pairs of add-or-remove. The others are drawn alike with and without the unit, and a
null unit, drawn or not, adds zero: the null dataset's outputs have the law of the smaller one's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.guarantee import Adjacency

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A dominating pair of one release.

    Args:
        numerator_weight: p, the chance under P that the unit's contribution is in the sum.
        denominator_weight: r, the same under Q.
        shift: 1/σ.

    Source: Zhu, Dong & Wang 2022 (arXiv 2106.08567), theorem 11; Lebeda et al. 2024
    (arXiv 2405.20769) for replace-one.
    """

    numerator_weight: float
    denominator_weight: float
    shift: float

    def loss(self, z: Array) -> Array:
        """Privacy loss `ln dP/dQ` at output `z`."""
        half = 0.5 * self.shift**2
        gain = _log_mixture(self.numerator_weight, self.shift * z - half)
        return gain - _log_mixture(self.denominator_weight, -self.shift * z - half)

    def output(self, loss: Array) -> Array:
        """The output whose privacy loss is `loss`; ±inf beyond the range of the loss."""
        p, r, half = self.numerator_weight, self.denominator_weight, 0.5 * self.shift**2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if r == 0:
                return (half + _log_unmixed(p, loss)) / self.shift
            if p == 0:
                return -(half + _log_unmixed(r, -loss)) / self.shift
            # u = e^(shift·z) solves a quadratic, whose root is an asinh.
            log_sinh = np.abs(loss) / 2 + np.log(-np.expm1(-np.abs(loss))) - math.log(2)
            log_ratio = np.log1p(-p) - math.log(p) + half + log_sinh
            return (loss / 2 + np.sign(loss) * _asinh_of_exp(log_ratio)) / self.shift

    def numerator_density(self, z: Array) -> Array:
        """Density of P at `z`."""
        p = self.numerator_weight
        density = (1 - p) * np.exp(-0.5 * z * z) + p * np.exp(-0.5 * (z - self.shift) ** 2)
        return density / math.sqrt(2 * math.pi)

    def range_holding(self, *, outside: float) -> tuple[float, float]:
        """Outputs `(low, high)` with at most `outside` of P's mass beyond either."""
        reach = math.sqrt(2 * math.log(1 / outside))
        if self.numerator_weight == 0:
            return -reach, reach
        far = math.sqrt(max(2 * math.log(2 * self.numerator_weight / outside), 0.0))
        return -reach, max(math.sqrt(2 * math.log(2 / outside)), self.shift + far)

    def cell_masses(self, edges: Array) -> tuple[Array, Array, Array]:
        """(P, Q, P − Q) masses of the cells between `edges`, each accurate in its own tail."""
        p, r = self.numerator_weight, self.denominator_weight
        still = normal_cells(edges)
        moved_up = normal_cells(edges - self.shift) if p else still
        moved_down = normal_cells(edges + self.shift) if r else still
        numerator = (1 - p) * still + p * moved_up
        denominator = (1 - r) * still + r * moved_down
        return numerator, denominator, p * (moved_up - still) + r * (still - moved_down)

    def delta(self, epsilon: float) -> float:
        """Hockey-stick divergence `E_P[(1 − e^(ε − loss))_+]` of a single release."""
        z = float(self.output(np.array([epsilon]))[0])
        numerator, denominator, excess = self.cell_masses(np.array([z, np.inf]))
        if epsilon < 1:
            return max(float(excess[0] - math.expm1(epsilon) * denominator[0]), 0.0)
        p, r = self.numerator_weight, self.denominator_weight
        log_tails = np.array([log_ndtr(-z), log_ndtr(-z - self.shift)])
        with np.errstate(divide="ignore"):
            scaled = np.exp(epsilon + log_tails + np.log([1 - r, r])).sum()
        return max(float(numerator[0] - scaled), 0.0) if p or r else 0.0

    def epsilon(self, delta: float) -> float:
        """The smallest ε >= 0 with `self.delta(ε) <= delta`, from above (relative 1e-13)."""
        if self.delta(0.0) <= delta:
            return 0.0
        _, top = self.range_holding(outside=delta)
        high = float(self.loss(np.array([top]))[0])
        return last_negative(
            function=lambda epsilon: delta - self.delta(epsilon),
            low=0.0,
            high=high,
            tolerance=1e-13,
        )[1]


def dominating_pairs(*, release: Release, adjacency: Adjacency) -> tuple[Pair, ...]:
    """Every pair whose δ(ε) must be covered; the guarantee is the worst of them.

    >>> once = Release(probability=0.5, noise_multiplier=2.0)
    >>> len(dominating_pairs(release=once, adjacency=Adjacency.ADD_OR_REMOVE))
    2
    """
    q, shift = release.probability, 1 / release.noise_multiplier
    if adjacency is Adjacency.REPLACE_ONE:
        return (Pair(q, q, shift),)
    return (Pair(q, 0.0, shift), Pair(0.0, q, shift))


def _log_mixture(weight: float, exponent: Array) -> Array:
    """`ln(1 − weight + weight·e^exponent)` without overflow, accurate for tiny weights."""
    if weight == 0:
        return np.zeros_like(exponent)
    if weight == 1:
        return exponent
    small = np.log1p(weight * np.expm1(np.minimum(exponent, 30.0)))
    large = (
        exponent
        + math.log(weight)
        + np.log1p((1 - weight) / weight * np.exp(-np.maximum(exponent, 30.0)))
    )
    return np.where(exponent > 30, large, small)


def _log_unmixed(weight: float, log_mixture: Array) -> Array:
    """The inverse of `_log_mixture`: −inf below `ln(1 − weight)`."""
    if weight == 1:
        return log_mixture
    gain = np.where(
        log_mixture < -0.5,
        np.exp(log_mixture) - (1 - weight),
        np.expm1(np.minimum(log_mixture, 1.0)) + weight,
    )
    small = np.log(np.maximum(gain / weight, 0.0))
    large = log_mixture + np.log1p((weight - 1) * np.exp(-log_mixture)) - math.log(weight)
    return np.where(log_mixture > 1, large, small)


def _asinh_of_exp(exponent: Array) -> Array:
    """`asinh(e^exponent)` without overflow."""
    small: Array = np.arcsinh(np.exp(np.minimum(exponent, 20.0)))
    return np.where(exponent > 20, exponent + math.log(2), small)


def normal_cells(edges: Array) -> Array:
    """Standard normal mass between consecutive edges, ascending, from the nearer tail."""
    middle = int(np.searchsorted(edges[:-1], 0.0, side="right"))
    below: Array = ndtr(edges[: middle + 1])
    above: Array = ndtr(-edges[middle:])
    return np.concatenate([below[1:] - below[:-1], above[:-1] - above[1:]])
