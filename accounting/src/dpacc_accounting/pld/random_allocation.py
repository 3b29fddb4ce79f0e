"""The privacy loss of random allocation: each unit in exactly one of t Gaussian steps.

With e_i the unit vectors, the t outputs in units of the noise, and μ = 1/σ,

    P = (1/t)·Σ_i N(μ·e_i, I)        Q = N(0, I)

dominate, in both directions and with steps chosen adaptively. Under Q the likelihood ratio
S = dP/dQ is the mean of t independent X = e^(μz − μ²/2), z standard normal, and

    δ_remove(ε) = E_Q[(S − e^ε)_+]        δ_add(ε) = E_Q[(1 − e^ε·S)_+]

are both convex in S. So a law of X that is larger in convex order bounds both from above: each
value is split between the grid points around it, which keeps its mean. Merging the values of a cell
into their mean bounds both from below. Both orders survive sums, so t is reached by doubling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from dpacc_accounting.pld.dominating_pairs import Array, normal_cells
from dpacc_accounting.pld.privacy_losses import AtomicLoss, Atoms

LARGEST_SHIFT = 25.0
"""The largest 1/σ whose likelihood ratios are within a double's range."""
# Values that a law is kept on; the excess of ε falls with the square.
_POINTS = 1500
_MOST_POINTS = 1 << 14
# The plan of a sum is drawn from this many values of each part.
_PLANNED = 160
# Where most of a sum lies, in standard deviations of its logarithm; half of the grid is there.
_BULK = 6.0
# What rounding can do, for each step that is summed: far above what is observed.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class AllocatedLoss(AtomicLoss):
    """The privacy loss of one epoch of t steps, of which a unit takes part in one.

    Args:
        steps: t, at least 2.
        shift: μ = 1/σ, at most `LARGEST_SHIFT`.
        adding: whether Q is the output with the unit.

    Source: Chua et al. 2024 (arXiv 2412.16802), balls and bins; Feldman & Shenfeld 2025
    (arXiv 2502.08202).
    """

    steps: int
    shift: float
    adding: bool

    @property
    def most_points(self) -> int:
        """A few for each value of S."""
        return _MOST_POINTS

    def fine_step(self, *, outside: float) -> float:
        """Any: the values of S are not cut by the loss's grid."""
        return math.inf

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The loss `ln S` under P, or `−ln S` under Q, from above or from below."""
        # Rounded, so that neighbouring questions share the work.
        mean = _mean_of(self.steps, self.shift, 10.0 ** math.floor(math.log10(outside)), above)
        error = _ROUNDING * (10 + self.steps) * (1 if above else -1)
        positive = mean.values > 0
        values, masses = mean.values[positive], mean.masses[positive]
        losses, infinite = np.log(values), mean.lost_with
        if self.adding:
            losses, infinite = -losses, mean.lost + math.fsum(mean.masses[~positive])
        else:
            masses = masses * values
        lost = infinite * (1 + error) if above else 0.0
        return Atoms(losses + error, masses * (1 + error), lost)


@dataclass(frozen=True)
class _Mean:
    """The law under Q of the mean of `count` independent X, its largest values cut off.

    Args:
        count: how many X.
        values: ascending.
        masses: probability under Q of each.
        lost: probability under Q of what was cut off.
        lost_with: the part of the mean that was cut off: its probability under P.
    """

    count: int
    values: Array
    masses: Array
    lost: float
    lost_with: float


@lru_cache(maxsize=64)
def _mean_of(steps: int, shift: float, outside: float, above: bool) -> _Mean:
    """The mean of `steps` X by repeated doubling."""
    power = _single(steps, shift, outside, above)
    total, left = None, steps
    while True:
        if left % 2:
            total = power if total is None else _sum(total, power, outside, above)
        left //= 2
        if left == 0:
            assert total is not None
            return total
        power = _sum(power, power, outside, above)


def _single(steps: int, shift: float, outside: float, above: bool) -> _Mean:
    """One X, from above or from below."""
    rare = -float(ndtri(outside / (4 * steps)))
    top = max(rare, shift - float(ndtri(outside / 4)))
    edges = np.linspace(-rare, top, _POINTS)
    values = np.exp(shift * edges - shift**2 / 2)
    without = normal_cells(np.append(-np.inf, edges))
    mean = normal_cells(np.append(-np.inf, edges) - shift)
    lost, lost_with = float(ndtr(-top)), float(ndtr(shift - top))
    if not above:
        held = without > 0
        return _Mean(1, mean[held] / without[held], without[held], lost, lost_with)
    grid = np.append(0.0, values)
    upper = np.clip((mean - grid[:-1] * without) / np.diff(grid), 0.0, without)
    masses = np.append(without - upper, 0.0) + np.append(0.0, upper)
    return _Mean(1, grid, masses, lost, lost_with)


def _sum(one: _Mean, other: _Mean, outside: float, above: bool) -> _Mean:
    """The mean of all that `one` and `other` are means of."""
    count = one.count + other.count
    share, rest = one.count / count, other.count / count
    grid = _planned_grid(one, other, outside)
    masses, moments = np.zeros(len(grid)), np.zeros(len(grid))
    for block in np.array_split(np.arange(len(one.values)), max(len(one.values) // 64, 1)):
        # Twice the same law: each pair of values counts for the pair the other way around.
        others = slice(block[0] if one is other else 0, None)
        chances = one.masses[block][:, None] * other.masses[None, others]
        if one is other:
            square = np.ones((len(block), len(block)))
            chances[:, : len(block)] *= np.triu(square) - np.diag(square[0]) / 2
            chances *= 2
        values = (share * one.values[block])[:, None] + (rest * other.values[others])[None, :]
        values, chances = values.ravel(), chances.ravel()
        cells = np.searchsorted(grid, values, side="right") - 1
        masses += np.bincount(cells, chances, len(grid))
        moments += np.bincount(cells, chances * (values - grid[cells]), len(grid))
    cut_mass, cut_moment = float(masses[-1]), float(moments[-1] + masses[-1] * grid[-1])
    masses[-1] = moments[-1] = 0.0
    lost = one.lost + other.lost + cut_mass
    # A part that was cut off takes the other part's whole mean, 1, along.
    lost_with = share * (one.lost_with + other.lost) + rest * (other.lost_with + one.lost)
    settle = _split if above else _merged
    return _Mean(count, *settle(grid, masses, moments), lost, lost_with + cut_moment)


def _split(grid: Array, masses: Array, moments: Array) -> tuple[Array, Array]:
    """What lies in each cell, moved to the cell's ends so that its mean stays.

    Args:
        grid: the cells' lower ends; the last one holds nothing.
        masses: probability in each cell.
        moments: first moment in each cell, from its lower end.
    """
    upper = np.clip(moments[:-1] / np.diff(grid), 0.0, masses[:-1])
    return grid, np.append(masses[:-1] - upper, 0.0) + np.append(0.0, upper)


def _merged(grid: Array, masses: Array, moments: Array) -> tuple[Array, Array]:
    """What lies in each cell, moved to its mean; as `_split` otherwise."""
    held = masses > 0
    return grid[held] + moments[held] / masses[held], masses[held]


def _planned_grid(one: _Mean, other: _Mean, outside: float) -> Array:
    """0, and values up to where P and Q have `outside` left: half of them where most mass is."""
    values, ends, chances = _thinned_sum(one, other)
    above = _at_least(ends, chances * np.maximum(ends, 1.0))
    below = _at_least(-values, chances)
    top = math.log(float(ends[above > outside].max(initial=ends.min())))
    bottom = math.log(float(values[below > outside].min(initial=values.max())))
    losses, weights = np.log(values), chances * (1 + values)
    centre = float(np.average(losses, weights=weights))
    spread = _BULK * math.sqrt(float(np.average((losses - centre) ** 2, weights=weights)))
    bulk = np.linspace(max(centre - spread, bottom), min(centre + spread, top), _POINTS // 2)
    whole = np.linspace(bottom, top, _POINTS - len(bulk))
    return np.append(0.0, np.exp(np.unique(np.append(whole, bulk))))


def _thinned_sum(one: _Mean, other: _Mean) -> tuple[Array, Array, Array]:
    """Values above 0 of the mean of both, the ends of their cells, and their chances: for plans."""
    total = one.count + other.count
    parts = [_thinned(one, one.count / total), _thinned(other, other.count / total)]
    values, ends = ((parts[0][k][:, None] + parts[1][k][None, :]).ravel() for k in (0, 1))
    chances = (parts[0][2][:, None] * parts[1][2][None, :]).ravel()
    possible = (values > 0) & (chances > 0)
    return values[possible], ends[possible], chances[possible]


def _thinned(mean: _Mean, share: float) -> tuple[Array, Array, Array]:
    """Fewer values about where `mean` has them, times its share: their means, ends and chances."""
    groups = np.arange(len(mean.values)) * _PLANNED // len(mean.values)
    last = np.append(np.flatnonzero(np.diff(groups)), len(groups) - 1)
    masses: Array = np.bincount(groups, mean.masses).astype(np.float64)
    moments = np.bincount(groups, mean.masses * mean.values)
    ends = mean.values[last]
    held = masses > 0
    means = np.where(held, moments / np.where(held, masses, 1.0), ends)
    return share * means, share * ends, masses


def _at_least(values: Array, masses: Array) -> Array:
    """The mass of each value and of all that are larger."""
    order = np.argsort(-values)
    found = np.empty_like(masses)
    found[order] = np.cumsum(masses[order])
    return found
