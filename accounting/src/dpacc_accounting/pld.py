"""Price releases by their privacy loss distribution, between two certified bounds.

For each dominating pair the loss of one release is put on a grid fitted to the target, composed
by a tilted Fourier transform, and read off; the upper bound is never below the exact value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.composition import Release
from dpacc_accounting.convolution import Composition, compose
from dpacc_accounting.dots import dots_above_and_below
from dpacc_accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pairs import Pair, dominating_pairs
from dpacc_accounting.saddlepoint import (
    RIGHT_MARGIN,
    Cumulants,
    Window,
    window_at_delta,
    window_at_epsilon,
)

# Relative excess of ε that the grid may cause.
GRID_TOLERANCE = 1e-4
# More grid points than this are refused, and the grid is widened instead.
LARGEST_GRID = 1 << 21
# One unit moves the sum by this many noise deviations: no subsampling helps any more.
_LARGEST_SHIFT = 50.0


@dataclass(frozen=True)
class Bounds:
    """A certified interval `low <= exact value <= high`."""

    low: float
    high: float


def epsilon_bounds(
    *,
    counts: Mapping[Release, int],
    adjacency: Adjacency,
    delta: float,
    tolerance: float = GRID_TOLERANCE,
) -> Bounds:
    """Bounds on the exact ε at `delta` of everything in `counts`, composed.

    Args:
        counts: how often each release is made; noise multipliers are positive.
        adjacency: which datasets are neighbours.
        delta: δ in (0, 1).
        tolerance: relative excess of ε that the grid may cause.

    Source: Doroshenko et al. 2022 (arXiv 2207.04380).

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = epsilon_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)
    >>> bounds.low <= 1.8281 <= bounds.high <= 1.8285
    True
    """
    cap = gaussian_epsilon(mu=joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    if all(release.probability == 1 for release in counts):
        return Bounds(cap, cap)
    return _worst(
        counts, adjacency, cap, lambda view: view.epsilon_at(delta=delta, tolerance=tolerance)
    )


def delta_bounds(
    *,
    counts: Mapping[Release, int],
    adjacency: Adjacency,
    epsilon: float,
    tolerance: float = GRID_TOLERANCE,
) -> Bounds:
    """Bounds on the exact δ at `epsilon` of everything in `counts`, composed.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = delta_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=1.8282)
    >>> bounds.low <= 1e-5 <= bounds.high <= 1.01e-5
    True
    """
    cap = gaussian_delta(mu=joint_mu(counts=counts, adjacency=adjacency), epsilon=epsilon)
    if all(release.probability == 1 for release in counts):
        return Bounds(cap, cap)
    return _worst(
        counts, adjacency, cap, lambda view: view.delta_at(epsilon=epsilon, tolerance=tolerance)
    )


def joint_mu(*, counts: Mapping[Release, int], adjacency: Adjacency) -> float:
    """μ of all releases composed without sampling: `sqrt(Σ n_i (s/σ_i)²)`, s = 1 or 2.

    >>> joint_mu(counts={Release(1.0, 2.0): 4}, adjacency=Adjacency.REPLACE_ONE)
    2.0
    """
    sensitivity = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    terms = (n * (sensitivity / r.noise_multiplier) ** 2 for r, n in counts.items())
    return math.sqrt(math.fsum(terms))


def _worst(
    counts: Mapping[Release, int],
    adjacency: Adjacency,
    cap: float,
    price: Callable[[_View], Bounds],
) -> Bounds:
    """The largest bounds over all views, capped by those without sampling."""
    if max(1 / release.noise_multiplier for release in counts) > _LARGEST_SHIFT:
        return Bounds(0.0, cap)
    views = zip(*(dominating_pairs(release=r, adjacency=adjacency) for r in counts), strict=True)
    bounds = [price(_View(pairs, tuple(counts.values()))) for pairs in views]
    low = max(bound.low for bound in bounds)
    return Bounds(min(low, cap), min(max(bound.high for bound in bounds), cap))


@dataclass(frozen=True)
class _View:
    """One choice of who is P and who is Q, the same in every release."""

    pairs: tuple[Pair, ...]
    times: tuple[int, ...]

    def epsilon_at(self, *, delta: float, tolerance: float) -> Bounds:
        if self._single():
            exact = self.pairs[0].epsilon(delta)
            return Bounds(exact, exact)
        window = window_at_delta(cumulants=self._cumulants(delta), delta=delta)
        above, below = self._compositions(window, delta, tolerance)
        high = _epsilon_of(above.delta_above, window, delta)[1]
        low = _epsilon_of(below.delta_below, window, delta)[0]
        return Bounds(min(low, high), high)

    def delta_at(self, *, epsilon: float, tolerance: float) -> Bounds:
        if self._single():
            exact = self.pairs[0].delta(epsilon)
            return Bounds(exact, exact)
        window = window_at_epsilon(cumulants=self._cumulants(1e-30), epsilon=epsilon)
        above, below = self._compositions(window, math.exp(window.log_delta), tolerance)
        return Bounds(below.delta_below(epsilon), above.delta_above(epsilon))

    def _single(self) -> bool:
        return self.times == (1,)

    def _outside(self, delta: float) -> float:
        return math.exp(-RIGHT_MARGIN) * delta / sum(self.times)

    def _cumulants(self, delta: float) -> Cumulants:
        return Cumulants(pairs=self.pairs, times=self.times, outside=self._outside(delta))

    def _compositions(
        self, window: Window, delta: float, tolerance: float
    ) -> tuple[Composition, Composition]:
        outside = self._outside(delta)
        step = self._step(window, outside, tolerance)
        dots = [dots_above_and_below(pair=p, step=step, outside=outside) for p in self.pairs]
        above, below = zip(*dots, strict=True)
        return (
            compose(laws=above, times=self.times, window=window),
            compose(laws=below, times=self.times, window=window),
        )

    def _step(self, window: Window, outside: float, tolerance: float) -> float:
        """The grid whose excess variance, T·h²/6 at most, moves ε by `tolerance`."""
        epsilon = max(window.epsilon, 0.05 * (window.high - window.low))
        fitted = math.sqrt(12 * tolerance * epsilon / (sum(self.times) * (1 + window.tilt)))
        widest = max(window.high - window.low, *(_width(pair, outside) for pair in self.pairs))
        return max(fitted, widest / LARGEST_GRID)


def _width(pair: Pair, outside: float) -> float:
    return float(np.ptp(pair.loss(np.array(pair.range_holding(outside=outside)))))


def _epsilon_of(
    delta_at: Callable[[float], float], window: Window, delta: float
) -> tuple[float, float]:
    """A tight bracket `(a, b)` of the ε at which a falling δ(ε) reaches `delta`."""
    if delta_at(0.0) <= delta:
        return 0.0, 0.0

    def shortfall(epsilon: float) -> float:
        return math.log(delta) - math.log(max(delta_at(epsilon), 1e-300))

    low, high = 0.99 * window.epsilon, 1.01 * window.epsilon + 1e-12
    while low > 0 and shortfall(low) >= 0:
        low, high = max(2 * low - high, 0.0), low
    while shortfall(high) < 0:
        low, high = high, 2 * high - low
    return last_negative(function=shortfall, low=low, high=high, tolerance=1e-10)
