"""A composition's privacy loss, for one choice of P and Q, on a grid fitted to what is asked.

The grid's step is chosen so that its excess variance moves ε by a ten-thousandth, from an
estimate of ε and of how fast the tail thins out there; when the answer shows that the estimate
was far off, the grid is fitted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.pld.convolution import Composition, compose
from dpacc_accounting.pld.dominating_pairs import Pair
from dpacc_accounting.pld.privacy_losses import PrivacyLoss, on_grid
from dpacc_accounting.pld.saddlepoint import (
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
# A grid that would need more points than these is fitted on as few first.
_SKETCHES = (1 << 17, 1 << 19)
# The estimate that a grid is fitted to is replaced this often when it was far off.
_REFITS = 8


@dataclass(frozen=True)
class Bounds:
    """A certified interval `low <= exact value <= high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """A grid's step, the tilt, and how fast δ′ was taken to fall with ε in choosing the step."""

    step: float
    tilt: float
    steepness: float


@dataclass(frozen=True)
class Grid:
    """A plan, the window that it needs here, and the mass that each release may leave out.

    It is `cramped` where the plan's own step would have taken too many points.
    """

    plan: Plan
    window: Window
    outside: float
    cramped: bool

    def too_coarse(self, steepness: float) -> bool:
        """Whether the tail thins out much faster than planned for, and points are not lacking."""
        return steepness > 2 * self.plan.steepness and not self.cramped


@dataclass(frozen=True)
class ComposedLoss:
    """Of releases together, for one choice of who is P and who is Q, the same in every one."""

    pairs: tuple[Pair | PrivacyLoss, ...]
    times: tuple[int, ...]

    def estimate(self, *, delta: float) -> float:
        """ε to a percent or so, without a grid: not a bound."""
        return estimated_epsilon(cumulants=self._cumulants(delta), delta=delta)

    def log_delta(self, *, epsilon: float) -> float:
        """ln δ, likewise only an estimate."""
        return estimated_log_delta(cumulants=self._cumulants(1e-30), epsilon=epsilon)

    def epsilon_above(self, *, delta: float) -> tuple[float, Grid | None]:
        """An upper bound on ε, and the grid it came from: none where it is exact."""
        single = self._single()
        if single:
            return single.epsilon(delta), None
        cumulants = self._cumulants(delta)
        guess = estimated_epsilon(cumulants=cumulants, delta=delta)
        steepness = 0.0
        for points in (*_SKETCHES, LARGEST_GRID):
            for _ in range(_REFITS):
                grid = self._fitted(cumulants, guess, delta, steepness, points)
                law = self._above(grid)
                high = _bracket(law, law.delta_above, delta=delta)[1]
                if high in (0.0, math.inf):
                    break
                far = abs(high - guess) > 0.1 * high or high < grid.window.clean_from
                steepness, guess = max(steepness, law.steepness(high)), high
                if not (far or grid.too_coarse(steepness)):
                    break
            if not grid.cramped:
                break
        return high, grid

    def excess(self, *, epsilon: float, delta: float, points: int) -> float:
        """`ln(ε at δ / epsilon)` to first order, ε from above on a grid of at most `points`.

        It is for a search, and depends on the pairs more smoothly than ε, which may be 0 or ∞.
        """
        single = self._single()
        if single:
            return math.log(max(single.epsilon(delta), 1e-300) / epsilon)
        cumulants = self._cumulants(delta)
        steepness = 0.0
        for affordable in sorted({min(points, _SKETCHES[0]), points}):
            for _ in range(_REFITS):
                grid = self._fitted(cumulants, epsilon, delta, steepness, affordable)
                law = self._above(grid)
                steepness = max(steepness, law.steepness(epsilon))
                if not grid.too_coarse(steepness):
                    break
            if not grid.cramped:
                break
        high, fall = law.delta_above(epsilon), law.relative_fall(epsilon)
        if high >= 1 or not fall:
            return math.inf if high > delta else -math.inf
        return math.log(high / delta) / (fall * epsilon)

    def epsilon_below(self, *, delta: float, high: float, grid: Grid | None) -> float:
        """A lower bound on ε, on the grid of the upper bound `high`."""
        if grid is None:
            return high
        law = self._below(grid)
        return min(_bracket(law, law.delta_below, delta=delta)[0], high)

    def delta_bounds(self, *, epsilon: float) -> tuple[Bounds, Grid | None]:
        """Bounds on δ, and the grid they came from: none where they are exact."""
        single = self._single()
        if single:
            exact = single.delta(epsilon)
            return Bounds(exact, exact), None
        guess = math.exp(self.log_delta(epsilon=epsilon))
        steepness, least = 0.0, math.exp(LOG_DELTA_FLOOR)
        for points in (*_SKETCHES, LARGEST_GRID):
            for _ in range(_REFITS):
                # What may be left out is in the laws themselves, and so in the window's plan.
                grid = self._fitted(self._cumulants(guess), epsilon, guess, steepness, points)
                law = self._above(grid)
                high = law.delta_above(epsilon)
                steepness = max(steepness, law.steepness(epsilon))
                far = not 0.01 * guess <= high <= 100 * guess
                if high <= least or not (far or grid.too_coarse(steepness)):
                    break
                guess = high
            if high <= least or not grid.cramped:
                break
        return Bounds(min(self._below(grid).delta_below(epsilon), high), high), grid

    def delta_above(self, *, epsilon: float, delta: float, like: Grid | None) -> float:
        """An upper bound on δ, on a grid as fine as `like` and under its tilt."""
        single = self._single()
        if single and like is None:
            return single.delta(epsilon)
        if like is None:
            raise ValueError("a composition needs a grid")
        delta = max(delta, math.exp(LOG_DELTA_FLOOR))
        grid = self._grid(self._cumulants(delta), epsilon, delta, like.plan, LARGEST_GRID)
        return self._above(grid).delta_above(epsilon)

    def _single(self) -> Pair | None:
        """The pair of a single release, whose price is exact without a grid."""
        return first if self.times == (1,) and isinstance(first := self.pairs[0], Pair) else None

    def _cumulants(self, delta: float) -> Cumulants:
        return Cumulants(pairs=self.pairs, times=self.times, outside=self._outside(delta))

    def _outside(self, delta: float) -> float:
        return math.exp(-RIGHT_MARGIN) * delta / self._releases()

    def _releases(self) -> int:
        return sum(n * _grids(pair) for pair, n in zip(self.pairs, self.times, strict=True))

    def _fitted(
        self,
        cumulants: Cumulants,
        epsilon: float,
        delta: float,
        steepness: float,
        points: int = LARGEST_GRID,
    ) -> Grid:
        """The grid whose excess variance, about T·h²/6, moves ε by `GRID_TOLERANCE`."""
        tilt = tilt_around(cumulants=cumulants, epsilon=epsilon)
        spread = math.sqrt(cumulants.at(tilt)[2])
        moved = GRID_TOLERANCE * max(epsilon, 0.1 * spread)
        steepness = max(steepness, 1 + tilt)
        step = math.sqrt(12 * moved / (self._releases() * steepness))
        return self._grid(cumulants, epsilon, delta, Plan(step, tilt, steepness), points)

    def _grid(
        self, cumulants: Cumulants, epsilon: float, delta: float, plan: Plan, points: int
    ) -> Grid:
        outside = self._outside(delta)
        window = window_around(
            cumulants=cumulants, epsilon=epsilon, log_delta=math.log(delta), tilt=plan.tilt
        )
        finest = (_width(pair, outside) / _most_points(pair) for pair in self.pairs)
        useful, least = max(plan.step, *finest), (window.high - window.low) / points
        return Grid(replace(plan, step=max(useful, least)), window, outside, useful < least)

    def _above(self, grid: Grid) -> Composition:
        return self._composed(grid, above=True)

    def _below(self, grid: Grid) -> Composition:
        return self._composed(grid, above=False)

    def _composed(self, grid: Grid, *, above: bool) -> Composition:
        step, outside = grid.plan.step, grid.outside
        laws = [on_grid(law=p, step=step, outside=outside, above=above) for p in self.pairs]
        return compose(laws=laws, times=self.times, window=grid.window)


def _grids(pair: Pair | PrivacyLoss) -> int:
    """How many roundings to a grid one release amounts to."""
    return 1 if isinstance(pair, Pair) else pair.grids


def _most_points(pair: Pair | PrivacyLoss) -> int:
    return LARGEST_GRID if isinstance(pair, Pair) else pair.most_points


def _width(pair: Pair | PrivacyLoss, outside: float) -> float:
    if not isinstance(pair, Pair):
        return float(np.ptp(pair.quadrature(outside=outside)[0]))
    return float(np.ptp(pair.loss(np.array(pair.range_holding(outside=outside)))))


def _bracket(
    law: Composition, delta_at: Callable[[float], float], *, delta: float
) -> tuple[float, float]:
    """A bracket `(a, b)`, 1e-8 wide, of the ε at which a falling bound on δ(ε) meets `delta`."""

    def shortfall(epsilon: float) -> float:
        return math.log(delta) - math.log(max(delta_at(epsilon), 1e-300))

    near = law.epsilon_near(delta=delta, start=law.anchor)
    excess = max(delta_at(near), 0.5 * delta) / delta
    near = law.epsilon_near(delta=delta / excess, start=near)
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
