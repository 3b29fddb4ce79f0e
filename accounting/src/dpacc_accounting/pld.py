"""Price releases by their privacy loss distribution, between two certified bounds.

For each dominating pair the loss of one release is put on a grid fitted to the target, composed
by a tilted Fourier transform, and read off; the upper bound is never below the exact value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.composition import Release
from dpacc_accounting.convolution import Composition, compose
from dpacc_accounting.dots import dots_above, dots_below
from dpacc_accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pairs import Pair, dominating_pairs
from dpacc_accounting.saddlepoint import (
    LOG_DELTA_FLOOR,
    RIGHT_MARGIN,
    Cumulants,
    Window,
    estimated_epsilon,
    estimated_log_delta,
    tilt_around,
    window_around,
)

# Relative excess of ε that the grid may cause.
GRID_TOLERANCE = 1e-4
# More grid points than this are refused, and the grid is widened instead.
LARGEST_GRID = 1 << 21
# One unit moves the sum by this many noise deviations: no subsampling helps any more.
_LARGEST_SHIFT = 50.0
# The estimate that a grid is fitted to is replaced this often when it was far off.
_REFITS = 4


@dataclass(frozen=True)
class Bounds:
    """A certified interval `low <= exact value <= high`."""

    low: float
    high: float


def epsilon_bounds(*, counts: Mapping[Release, int], adjacency: Adjacency, delta: float) -> Bounds:
    """Bounds on the exact ε at `delta` of everything in `counts`, composed.

    Args:
        counts: how often each release is made; noise multipliers are positive.
        adjacency: which datasets are neighbours.
        delta: δ in (0, 1).

    Source: Doroshenko et al. 2022 (arXiv 2207.04380).

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = epsilon_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)
    >>> bounds.low <= 1.8281 <= bounds.high <= 1.8285
    True
    """
    if participation(counts=counts) <= delta:
        return Bounds(0.0, 0.0)
    cap = gaussian_epsilon(mu=joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    if _beyond_amplification(counts):
        return _without_amplification(counts, cap)
    leader, *others = sorted(
        _views(counts, adjacency), key=lambda view: view.estimate(delta=delta), reverse=True
    )
    high, grid = leader.epsilon_above(delta=delta)
    low = leader.epsilon_below(delta=delta, high=high, grid=grid)
    for view in others:
        # One check shows that a view is no worse, on a grid that need not resolve its own ε.
        if view.delta_above(epsilon=high, delta=delta, like=grid) > delta:
            own, own_grid = view.epsilon_above(delta=delta)
            low = max(low, view.epsilon_below(delta=delta, high=own, grid=own_grid))
            high = max(high, own)
    return Bounds(min(low, cap), min(high, cap))


def leading_epsilon(
    *, counts: Mapping[Release, int], adjacency: Adjacency, delta: float, near: float
) -> float:
    """The upper bound from the pair that is nearly always the worst: certified for it alone.

    A search evaluates this, and `epsilon_bounds` only where it ends.

    Args:
        counts: how often each release is made.
        adjacency: which datasets are neighbours.
        delta: δ in (0, 1).
        near: roughly the answer; the grid is fitted to it.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> round(leading_epsilon(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5,
    ...                       near=2.0), 2)
    1.83
    """
    if participation(counts=counts) <= delta:
        return 0.0
    cap = gaussian_epsilon(mu=joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    if _beyond_amplification(counts):
        return cap
    leader, *_ = _views(counts, adjacency)
    return min(leader.epsilon_above(delta=delta, near=near)[0], cap)


def delta_bounds(*, counts: Mapping[Release, int], adjacency: Adjacency, epsilon: float) -> Bounds:
    """Bounds on the exact δ at `epsilon` of everything in `counts`, composed.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = delta_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=1.8282)
    >>> bounds.low <= 1e-5 <= bounds.high <= 1.01e-5
    True
    """
    cap = gaussian_delta(mu=joint_mu(counts=counts, adjacency=adjacency), epsilon=epsilon)
    cap = min(cap, participation(counts=counts))
    if _beyond_amplification(counts):
        return _without_amplification(counts, cap)
    leader, *others = sorted(
        _views(counts, adjacency), key=lambda view: view.log_delta(epsilon=epsilon), reverse=True
    )
    best, grid = leader.delta_bounds(epsilon=epsilon)
    for view in others:
        if view.delta_above(epsilon=epsilon, delta=best.high, like=grid) > best.high:
            own, _ = view.delta_bounds(epsilon=epsilon)
            best = Bounds(max(best.low, own.low), max(best.high, own.high))
    return Bounds(min(best.low, cap), min(best.high, cap))


def joint_mu(*, counts: Mapping[Release, int], adjacency: Adjacency) -> float:
    """μ of all releases composed without sampling: `sqrt(Σ n_i (s/σ_i)²)`, s = 1 or 2.

    >>> joint_mu(counts={Release(1.0, 2.0): 4}, adjacency=Adjacency.REPLACE_ONE)
    2.0
    """
    sensitivity = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    terms = (n * (sensitivity / r.noise_multiplier) ** 2 for r, n in counts.items())
    return math.sqrt(math.fsum(terms))


def participation(*, counts: Mapping[Release, int]) -> float:
    """The chance that a unit takes part at all, `1 − Π (1 − q_i)^n_i`: no δ need be larger.

    >>> round(participation(counts={Release(0.01, 1.0): 2}), 4)
    0.0199
    """
    if any(release.probability == 1 for release in counts):
        return 1.0
    return -math.expm1(math.fsum(n * math.log1p(-r.probability) for r, n in counts.items()))


def _beyond_amplification(counts: Mapping[Release, int]) -> bool:
    unsampled = all(release.probability == 1 for release in counts)
    return unsampled or max(1 / r.noise_multiplier for r in counts) > _LARGEST_SHIFT


def _without_amplification(counts: Mapping[Release, int], cap: float) -> Bounds:
    return Bounds(cap if all(r.probability == 1 for r in counts) else 0.0, cap)


def _views(counts: Mapping[Release, int], adjacency: Adjacency) -> list[_View]:
    """Every choice of P and Q, the same in every release."""
    pairs = zip(*(dominating_pairs(release=r, adjacency=adjacency) for r in counts), strict=True)
    return [_View(choice, tuple(counts.values())) for choice in pairs]


@dataclass(frozen=True)
class _Plan:
    """A grid's step, the tilt, and how fast δ′ was taken to fall with ε in choosing the step."""

    step: float
    tilt: float
    steepness: float


@dataclass(frozen=True)
class _Grid:
    """A plan, the window that it needs here, and the mass that each release may leave out."""

    plan: _Plan
    window: Window
    outside: float


@dataclass(frozen=True)
class _View:
    """One choice of who is P and who is Q, the same in every release."""

    pairs: tuple[Pair, ...]
    times: tuple[int, ...]

    def estimate(self, *, delta: float) -> float:
        return estimated_epsilon(cumulants=self._cumulants(delta), delta=delta)

    def log_delta(self, *, epsilon: float) -> float:
        return estimated_log_delta(cumulants=self._cumulants(1e-30), epsilon=epsilon)

    def epsilon_above(
        self, *, delta: float, near: float | None = None
    ) -> tuple[float, _Grid | None]:
        """An upper bound on ε, and the grid it came from: none where it is exact.

        A caller who knows the answer roughly saves the estimate by giving it as `near`, and
        bears a grid that fits a little less.
        """
        if self._single():
            return self.pairs[0].epsilon(delta), None
        cumulants = self._cumulants(delta)
        guess = estimated_epsilon(cumulants=cumulants, delta=delta) if near is None else near
        allowed, steepness = (0.1, 0.0) if near is None else (0.5, 0.0)
        for _ in range(_REFITS):
            grid = self._fitted(cumulants, guess, delta, steepness)
            law = self._above(grid)
            high = _bracket(law, law.delta_above, delta=delta, start=guess)[1]
            if high in (0.0, math.inf):
                break
            steepness = law.steepness(high)
            if abs(high - guess) <= allowed * high and steepness <= 2 * grid.plan.steepness:
                break
            guess = high
        return high, grid

    def epsilon_below(self, *, delta: float, high: float, grid: _Grid | None) -> float:
        if grid is None:
            return high
        law = self._below(grid)
        return min(_bracket(law, law.delta_below, delta=delta, start=high)[0], high)

    def delta_bounds(self, *, epsilon: float) -> tuple[Bounds, _Grid | None]:
        if self._single():
            exact = self.pairs[0].delta(epsilon)
            return Bounds(exact, exact), None
        cumulants = self._cumulants(1e-30)
        guess = math.exp(estimated_log_delta(cumulants=cumulants, epsilon=epsilon))
        for _ in range(_REFITS):
            grid = self._fitted(cumulants, epsilon, guess)
            high = self._above(grid).delta_above(epsilon)
            if 0.01 * guess <= high <= 100 * guess:
                break
            guess = max(high, math.exp(LOG_DELTA_FLOOR))
        return Bounds(min(self._below(grid).delta_below(epsilon), high), high), grid

    def delta_above(self, *, epsilon: float, delta: float, like: _Grid | None) -> float:
        """An upper bound on δ, on a grid as fine as `like` and under its tilt."""
        if like is None:
            return self.pairs[0].delta(epsilon)
        cumulants = self._cumulants(delta)
        grid = self._grid(cumulants, epsilon, delta, like.plan)
        return self._above(grid).delta_above(epsilon)

    def _single(self) -> bool:
        return self.times == (1,)

    def _cumulants(self, delta: float) -> Cumulants:
        return Cumulants(pairs=self.pairs, times=self.times, outside=self._outside(delta))

    def _outside(self, delta: float) -> float:
        return math.exp(-RIGHT_MARGIN) * delta / sum(self.times)

    def _fitted(
        self, cumulants: Cumulants, epsilon: float, delta: float, steepness: float = 0.0
    ) -> _Grid:
        """The grid whose excess variance, about T·h²/6, moves ε by `GRID_TOLERANCE`."""
        tilt = tilt_around(cumulants=cumulants, epsilon=epsilon)
        spread = math.sqrt(cumulants.at(tilt)[2])
        moved = GRID_TOLERANCE * max(epsilon, 0.1 * spread)
        steepness = max(steepness, 1 + tilt)
        step = math.sqrt(12 * moved / (sum(self.times) * steepness))
        return self._grid(cumulants, epsilon, delta, _Plan(step, tilt, steepness))

    def _grid(self, cumulants: Cumulants, epsilon: float, delta: float, plan: _Plan) -> _Grid:
        outside = self._outside(delta)
        window = window_around(
            cumulants=cumulants, epsilon=epsilon, log_delta=math.log(delta), tilt=plan.tilt
        )
        widest = max(window.high - window.low, *(_width(pair, outside) for pair in self.pairs))
        step = max(plan.step, widest / LARGEST_GRID)
        return _Grid(replace(plan, step=step), window, outside)

    def _above(self, grid: _Grid) -> Composition:
        laws = [dots_above(pair=p, step=grid.plan.step, outside=grid.outside) for p in self.pairs]
        return compose(laws=laws, times=self.times, window=grid.window)

    def _below(self, grid: _Grid) -> Composition:
        laws = [dots_below(pair=p, step=grid.plan.step, outside=grid.outside) for p in self.pairs]
        return compose(laws=laws, times=self.times, window=grid.window)


def _width(pair: Pair, outside: float) -> float:
    return float(np.ptp(pair.loss(np.array(pair.range_holding(outside=outside)))))


def _bracket(
    law: Composition, delta_at: Callable[[float], float], *, delta: float, start: float
) -> tuple[float, float]:
    """A bracket `(a, b)`, 1e-8 wide, of the ε at which a falling bound on δ(ε) meets `delta`."""

    def shortfall(epsilon: float) -> float:
        return math.log(delta) - math.log(max(delta_at(epsilon), 1e-300))

    near = law.epsilon_near(delta=delta, start=start)
    low, high = near * (1 - 2e-9), near * (1 + 2e-9) + 1e-15
    while shortfall(low) >= 0:
        if low == 0:
            return 0.0, 0.0
        low, high = max(low - 8 * (high - low), 0.0), low
    while shortfall(high) < 0:
        if high > law.losses[-1]:
            return 0.0, math.inf
        low, high = high, high + 8 * (high - low)
    return last_negative(function=shortfall, low=low, high=high, tolerance=1e-8)
