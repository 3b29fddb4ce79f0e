"""One release's privacy loss, on a grid: connect the dots from above and from below.

The hockey-stick curve `h(t) = E_Q[(dP/dQ − t)_+]`, t = e^ε, is convex. Its values at the grid
points, joined by straight lines, lie above it: a law on the grid that dominates the pair. Lowered
by the largest gap between line and curve, they lie below it: a law that the pair dominates. Both
orders survive composition.

Source: Doroshenko, Ghazi, Kamath, Kumar & Manurangsi 2022, Connect the Dots (arXiv 2207.04380).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.pld.dominating_pairs import Array, Pair

# e^loss is a double below this; no more is needed than where the loss of one release ends.
_LARGEST_LOSS = 600.0
# A grid wider than this, in nats, says nothing from below.
_WIDEST_STEP = 50.0


@dataclass(frozen=True)
class DiscretizedLoss:
    """A discretised privacy loss distribution, on the grid `shift + step · k`.

    Args:
        step: distance of neighbouring grid points, in nats.
        shift: loss of the grid point k = 0.
        first: the integer k of `masses[0]`.
        masses: probability under P of each grid point.
        infinite: probability under P of an infinite loss.
    """

    step: float
    shift: float
    first: int
    masses: Array
    infinite: float

    def losses(self) -> Array:
        """The grid points that `masses` belong to."""
        return self.shift + self.step * (self.first + np.arange(float(len(self.masses))))

    def log_moment(self, tilt: float) -> float:
        """`ln E[e^(tilt·loss); loss finite]`."""
        possible = self.masses > 0
        if not possible.any():
            return -math.inf
        exponents = tilt * self.losses()
        # They rise or fall throughout: the largest is that of one of the two ends.
        last = len(possible) - 1 - int(possible[::-1].argmax())
        peak = float(max(exponents[int(possible.argmax())], exponents[last]))
        exponents -= peak
        grown = np.exp(np.minimum(exponents, 0.0, out=exponents), out=exponents)
        grown *= self.masses
        return peak + math.log(float(grown.sum()))


def discretized_above(*, pair: Pair, step: float, outside: float) -> DiscretizedLoss:
    """A law on the grid of `step` that dominates `pair`.

    Args:
        pair: what is discretised.
        step: h; the variance of the loss grows by at most h²/4, typically h²/6.
        outside: P mass that either end of the grid may leave out. Above, it becomes an infinite
            loss; at the bottom it is lifted.
    """
    shift, first, edges, left, right = _connected(pair, step, outside)
    masses = np.append(left, 0.0) + np.append(0.0, right)
    masses[0] += pair.cell_masses(np.array([-np.inf, edges[0]]))[0][0]
    beyond = pair.cell_masses(np.array([edges[-1], np.inf]))[0][0]
    return DiscretizedLoss(step, shift, first, masses, float(beyond))


def discretized_below(*, pair: Pair, step: float, outside: float) -> DiscretizedLoss:
    """A law on the grid of `step` that `pair` dominates; mass left out is dropped."""
    shift, first, _, left, right = _connected(pair, step, outside)
    losses = shift + step * (first + np.arange(len(left) + 1.0))
    bulk = _merge_bulk(pair, losses, left, right)
    masses = np.append(left, 0.0) + np.append(0.0, right)
    masses[-first] += bulk
    masses = lowered(masses=masses, losses=losses, left=left, right=right)
    return DiscretizedLoss(step, shift, first, masses, 0.0)


def _connected(pair: Pair, step: float, outside: float) -> tuple[float, int, Array, Array, Array]:
    """The grid's shift and first index, its outputs, and the shares of every cell's ends."""
    low, high = pair.loss(np.array(pair.range_holding(outside=outside)))
    numerator, denominator, _ = pair.cell_masses(_bulk(pair, step))
    # The mean loss of the bulk: one narrower than the grid then meets a point of it. Where P or Q
    # has nothing there, any point will do.
    held = numerator[0] > 0 and denominator[0] > 0
    shift = math.log(numerator[0] / denominator[0]) if held else 0.0
    first = min(math.floor((low - shift) / step), -2)
    last = max(math.ceil((high - shift) / step), 2)
    losses = shift + step * np.arange(float(first), last + 1.0)
    edges = pair.output(losses)
    left, right = _shares(pair, losses[:-1], edges, step)
    return shift, first, edges, left, right


def _bulk(pair: Pair, step: float) -> Array:
    """The outputs, around the unsampled ones' median, whose losses differ by 2·step."""
    middle = pair.loss(np.zeros(1))
    return pair.output(np.append(middle - step, middle + step))


def _merge_bulk(pair: Pair, losses: Array, left: Array, right: Array) -> float:
    """Take the bulk out of its cells' shares: told apart no more, it is all at grid point 0.

    Merging outputs is post-processing, so that the pair still dominates.
    """
    step = float(losses[1] - losses[0])
    bulk = _bulk(pair, step)
    reach = np.clip(pair.output(losses), bulk[0], bulk[1])
    for k in np.flatnonzero(reach[1:] > reach[:-1]):
        share = _shares(pair, losses[k : k + 1], reach[k : k + 2], step)
        left[k] = max(left[k] - share[0][0], 0.0)
        right[k] = max(right[k] - share[1][0], 0.0)
    return float(pair.cell_masses(bulk)[0][0])


def _shares(pair: Pair, bottoms: Array, edges: Array, step: float) -> tuple[Array, Array]:
    """P mass between `edges`, shared between its cell's ends so that its Q mass is kept too.

    A cell reaches from loss `bottoms[k]` to `bottoms[k] + step`.
    """
    numerator, denominator, excess = pair.cell_masses(edges)
    growth = np.expm1(np.minimum(bottoms, _LARGEST_LOSS))
    # P − e^bottom·Q: where P is far below Q, only both themselves have the digits.
    surplus = np.where(
        bottoms < -1, numerator - (growth + 1) * denominator, excess - growth * denominator
    )
    right = surplus / -math.expm1(-step)
    right = np.where(bottoms > _LARGEST_LOSS, numerator, right)
    right = np.clip(right, 0.0, numerator)
    return numerator - right, right


def lowered(*, masses: Array, losses: Array, left: Array, right: Array) -> Array:
    """The grid law whose curve has been lowered below h, by about one gap a grid point.

    A chord lies below h once both its ends have dropped by the cell's gap. Towards either end of
    the grid the drop would exceed the height of h over its asymptote, max(1 − t, 0): there the
    lowered curve is the asymptote itself. Where that cannot be computed, each cell's mass goes down
    to its lower end, which lowers the curve by more.

    Args:
        masses: P mass of each grid point, whose curve consists of chords of h.
        losses: the grid points.
        left: what of it came from the cell above each point but the last.
        right: what came from the cell below each point but the first.
    """
    step = float(losses[1] - losses[0])
    if step > _WIDEST_STEP or losses[-1] > _LARGEST_LOSS:
        return _floored(masses, right)
    gaps = _gaps(left, right, step)
    drop = np.maximum(np.append(gaps, 0.0), np.append(0.0, gaps))
    put, call = _heights(masses, losses, step)
    middle = int(np.clip(np.searchsorted(losses, -0.5 * step), 0, len(losses) - 1))
    top = int(np.append(np.flatnonzero((call < drop)[middle:]) + middle, len(drop))[0])
    bottom = int(np.append(-1, np.flatnonzero((put < drop)[: middle + 1]))[-1])
    if top - bottom < 2:
        return _floored(masses, right)
    drop[: bottom + 1] = put[: bottom + 1]
    drop[top:] = call[top:]
    # The chord that leads to an asymptote starts on the tangent at its other end, or below it:
    # how far a cell's end lies above that tangent is its own share, in units of the curve.
    growth, decay = math.expm1(step), -math.expm1(-step)
    if bottom >= 0:
        drop[bottom + 1] = min(max(drop[bottom + 1], growth * left[bottom]), put[bottom + 1])
    if top < len(drop):
        drop[top - 1] = min(max(drop[top - 1], decay * right[top - 1]), call[top - 1])
    rise = np.diff(drop, append=0.0)
    lowered = masses - (rise - math.exp(step) * np.append(0.0, rise[:-1])) / growth
    lowered[: bottom + 1] = 0.0
    lowered[top:] = 0.0
    if bottom >= 0:
        lowered[bottom] = (put - drop)[bottom + 1] / growth
    if top < len(drop):
        lowered[top] = (call - drop)[top - 1] / decay
    hull = _convex(lowered, step)
    return hull if hull.any() else _floored(masses, right)


def _floored(masses: Array, right: Array) -> Array:
    """`masses`, each cell's upper share moved to its lower end too."""
    floored: Array = np.maximum(masses + np.append(right, 0.0) - np.append(0.0, right), 0.0)
    return floored


def _gaps(left: Array, right: Array, step: float) -> Array:
    """How far h can lie below its chord in each cell: two tangents bound it."""
    shrink = math.exp(-step)
    ends = left + right * shrink
    return math.expm1(step) * left * right * shrink / np.where(ends > 0, ends, 1.0)


def _heights(masses: Array, losses: Array, step: float) -> tuple[Array, Array]:
    """h above its two asymptotes at the grid points: sums of positive terms, exact in the tails.

    The second is h itself, the first h minus its tangent at the bottom of the grid.
    """
    scale = np.exp(np.clip(losses, -_LARGEST_LOSS, _LARGEST_LOSS))
    denominator = masses / scale
    widths = math.expm1(step) * scale
    put = np.append(0.0, np.cumsum(widths * np.cumsum(denominator))[:-1])
    above = np.append(np.cumsum(denominator[:0:-1])[::-1], 0.0)
    return put, np.cumsum((widths * above)[::-1])[::-1]


def _convex(masses: Array, step: float) -> Array:
    """The lower convex hull: a negative mass is taken from the nearest points on both sides.

    Both its P and its Q mass are taken along, so that only the point itself moves, downwards.
    """
    pending = [int(k) for k in np.flatnonzero(masses < 0)]
    before = np.arange(-1, len(masses) - 1) if pending else masses
    after = np.arange(1, len(masses) + 1) if pending else masses
    while pending:
        at = pending.pop()
        debt, left, right = masses[at], int(before[at]), int(after[at])
        if debt >= 0:
            continue
        if right == len(masses):
            return np.zeros_like(masses)
        masses[at] = 0.0
        before[right] = left
        if left >= 0:
            after[left] = right
            share = debt * math.expm1(-step * (at - left)) / math.expm1(-step * (right - left))
            masses[left] += debt - share
            masses[right] += share
        else:
            masses[right] += debt * math.exp(step * (right - at))
        pending += [k for k in (left, right) if k >= 0 and masses[k] < 0]
    return masses
