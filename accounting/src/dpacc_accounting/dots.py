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

from dpacc_accounting.pairs import Array, Pair

# e^loss is a double below this; no more is needed than where the loss of one release ends.
_LARGEST_LOSS = 600.0
_REPAIRS = 1000


@dataclass(frozen=True)
class Dots:
    """A privacy loss on the grid `shift + step · k`.

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
        exponents = tilt * self.losses()
        peak = float(exponents[self.masses > 0].max(initial=-math.inf))
        if peak == -math.inf:
            return -math.inf
        return peak + math.log(
            float((self.masses * np.exp(np.minimum(exponents - peak, 0.0))).sum())
        )


def dots_above_and_below(*, pair: Pair, step: float, outside: float) -> tuple[Dots, Dots]:
    """Laws on the grid of `step` that dominate `pair`, and that `pair` dominates.

    Args:
        pair: what is discretised.
        step: h; the variance of the loss grows by at most h²/4, typically h²/6.
        outside: P mass that either end of the grid may leave out. Above, it becomes an infinite
            loss (or none, from below); at the bottom it is lifted (or dropped).
    """
    low, high = pair.loss(np.array(pair.range_holding(outside=outside)))
    shift = _centre(pair, step)
    first = math.floor((low - shift) / step)
    last = max(math.ceil((high - shift) / step), first + 1)
    losses = shift + step * np.arange(first, last + 1)
    edges = pair.output(losses)
    left, right = _shares(pair, losses, edges, step)
    masses = np.append(left, 0.0)
    masses[1:] += right
    below = _lowered(masses, losses, left, right)
    lifted, _, _ = pair.cell_masses(np.array([-np.inf, edges[0]]))
    beyond, _, _ = pair.cell_masses(np.array([edges[-1], np.inf]))
    masses[0] += lifted[0]
    return (
        Dots(step, shift, first, masses, float(beyond[0])),
        Dots(step, shift, first, below, 0.0),
    )


def _centre(pair: Pair, step: float) -> float:
    """The mean loss near the median output: a bulk narrower than the grid then meets a point."""
    middle = pair.loss(np.zeros(1))
    edges = pair.output(np.append(middle - step, middle + step))
    numerator, denominator, _ = pair.cell_masses(edges)
    return float(np.log(numerator / denominator)[0])


def _shares(pair: Pair, losses: Array, edges: Array, step: float) -> tuple[Array, Array]:
    """Each cell's P mass, shared between its two ends so that its Q mass is kept as well."""
    numerator, denominator, excess = pair.cell_masses(edges)
    growth = np.expm1(np.minimum(losses[:-1], _LARGEST_LOSS))
    right = (excess - growth * denominator) / -math.expm1(-step)
    right = np.where(losses[:-1] > _LARGEST_LOSS, numerator, right)
    right = np.clip(right, 0.0, numerator)
    return numerator - right, right


def _lowered(masses: Array, losses: Array, left: Array, right: Array) -> Array:
    """The grid law whose curve has been lowered below h, by about one gap a grid point.

    A chord lies below h once both its ends have dropped by the cell's gap. Towards either end of
    the grid the drop would exceed the height of h over its asymptote, max(1 − t, 0): there the
    lowered curve is the asymptote itself.
    """
    step = float(losses[1] - losses[0])
    gaps = _gaps(left, right, step)
    drop = np.maximum(np.append(gaps, 0.0), np.append(0.0, gaps))
    put, call = _heights(masses, losses, step)
    middle = int(np.clip(np.searchsorted(losses, -0.5 * step), 0, len(losses) - 1))
    top = (call < drop) | (np.append(0.0, call[1:] - gaps) < 0)
    first_top = int(np.append(np.flatnonzero(top[middle:]) + middle, len(drop))[0])
    bottom = (put < drop) | (np.append(put[:-1] - gaps, 0.0) < 0)
    last_bottom = int(np.append(-1, np.flatnonzero(bottom[: middle + 1]))[-1])
    drop[first_top:] = call[first_top:]
    drop[: last_bottom + 1] = put[: last_bottom + 1]
    rise = np.diff(drop, append=0.0)
    bend = rise - math.exp(step) * np.append(0.0, rise[:-1])
    lowered = masses - bend / math.expm1(step)
    lowered[first_top + 1 :] = 0.0
    lowered[: max(last_bottom, 0)] = 0.0
    return _convex(lowered, step)


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
    """Negative masses absorbed by the next grid point up, which only lowers the curve."""
    for _ in range(_REPAIRS):
        negative = np.flatnonzero(masses < 0)
        if not len(negative):
            return masses
        at = negative[negative < len(masses) - 1]
        if not len(at):
            break
        debt = masses[at] * math.exp(step)
        masses[at] = 0.0
        np.add.at(masses, at + 1, debt)
    return np.zeros_like(masses)
