"""Sampled Gaussian losses of many clients at once, on one grid for each client.

The formulas are those of `dominating_pairs` and `connect_the_dots`, written for arrays with a row
for each kind of release: S is N(0, 1), M = (1 − q)·S + q·N(1/σ, 1). Removing a unit has P = M and
Q = S, adding one P = S and Q = M; outputs are mirrored in the latter, so that the loss always
increases with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dpacc_accounting.events.flattening import Release
from dpacc_accounting.pld.dominating_pairs import Array

Places: TypeAlias = NDArray[np.intp]

# Beyond this many deviations a normal tail is below 1e-284; smaller numbers are slow to handle.
_FAR = 36.0


@dataclass(frozen=True)
class Rows:
    """Kinds of release, those of one client next to each other.

    Args:
        q: sampling probability of each row.
        shift: 1/σ.
        times: how often it is released.
        client: the row's client, ascending from 0.
        starts: each client's first row.
        removing: whether P holds the unit and Q does not, or the other way round.
    """

    q: Array
    shift: Array
    times: Array
    client: Places
    starts: Places
    removing: bool

    @classmethod
    def of(cls, *, laws: Sequence[Mapping[Release, int]], removing: bool) -> Rows:
        """The rows of all `laws`, one mapping of releases to counts for each client."""
        sizes = [len(law) for law in laws]
        kinds = [release for law in laws for release in law]
        return cls(
            q=np.array([release.probability for release in kinds]),
            shift=1 / np.array([release.noise_multiplier for release in kinds]),
            times=np.array([n for law in laws for n in law.values()], dtype=float),
            client=np.repeat(np.arange(len(laws)), sizes),
            starts=np.append(0, np.cumsum(sizes)[:-1]).astype(int),
            removing=removing,
        )

    def total(self, values: Array) -> Array:
        """The sum over each client's rows."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=0))

    def loss(self, output: Array) -> Array:
        """Privacy loss at `output`, a row for each row."""
        q, shift = self.q[:, None], self.shift[:, None]
        mirror = 1 if self.removing else -1
        exponent = shift * (mirror * output) - 0.5 * shift**2
        with np.errstate(divide="ignore"):
            grown = np.log1p(-q) if np.all(q < 1) else np.log(np.maximum(1 - q, 0.0))
        return mirror * np.logaddexp(grown, np.log(q) + exponent)

    def output(self, loss: Array) -> Array:
        """The output whose loss is `loss`; ±inf beyond the range of the loss."""
        q, shift = self.q[:, None], self.shift[:, None]
        mirror = 1 if self.removing else -1
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            gain = np.maximum(np.expm1(mirror * loss) / q + 1, 0.0)
            return mirror * (np.log(gain) / shift + 0.5 * shift)

    def cells(self, edges: Array) -> tuple[Array, Array, Array]:
        """(P, Q, P − Q) masses between `edges`."""
        q = self.q[:, None]
        mirror = 1 if self.removing else -1
        still = _normal_cells(edges)
        moved = _normal_cells(edges - mirror * self.shift[:, None])
        difference = q * (moved - still)
        if self.removing:
            return still + difference, still, difference
        return still, still + difference, -difference

    def range_holding(self, outside: Array) -> tuple[Array, Array]:
        """Outputs with at most `outside` of P's mass beyond either."""
        reach = np.sqrt(2 * np.log(2 / outside))
        if not self.removing:
            return -reach, reach
        far = np.sqrt(np.maximum(2 * np.log(2 * self.q / outside), 0.0))
        return -reach, np.maximum(reach, self.shift + far)


@dataclass(frozen=True)
class BatchedLosses:
    """Each row's loss on the grid `base + step·k`, k = 0, 1, ..., dominating its pair."""

    step: Array
    base: Array
    masses: Array
    infinite: Array

    def losses(self) -> Array:
        """The grid points that `masses` belong to."""
        points = np.arange(float(self.masses.shape[1]))
        return np.asarray(self.base[:, None] + self.step[:, None] * points)


def discretized_above(*, rows: Rows, step: Array, outside: Array) -> BatchedLosses:
    """Connect the dots of every row: the hockey-stick curve's chords lie above it.

    Args:
        rows: what is discretised.
        step: h of each row.
        outside: P mass that either end of a row's grid may leave out.

    Source: Doroshenko et al. 2022 (arXiv 2207.04380).
    """
    low, high = rows.range_holding(outside)
    ends = rows.loss(np.stack([low, high], axis=1))
    anchor = _bulk_loss(rows, step)
    first = np.minimum(np.floor((ends[:, 0] - anchor) / step), -2)
    last = np.maximum(np.ceil((ends[:, 1] - anchor) / step), 2)
    base = anchor + step * first
    cells = (last - first).astype(int)
    points = np.arange(cells.max() + 1.0)
    losses = base[:, None] + step[:, None] * points
    # Beyond a row's own last point, where longer rows go on, its cells are empty.
    edges = rows.output(np.minimum(losses, np.take_along_axis(losses, cells[:, None], axis=1)))
    numerator, denominator, excess = rows.cells(edges)
    growth = np.expm1(losses[:, :-1])
    right = (excess - growth * denominator) / -np.expm1(-step)[:, None]
    right = np.clip(right, 0.0, numerator)
    masses = np.zeros_like(losses)
    masses[:, :-1] = numerator - right
    masses[:, 1:] += right
    far = np.full((len(step), 1), np.inf)
    masses[:, :1] += rows.cells(np.hstack([-far, edges[:, :1]]))[0]
    beyond = rows.cells(np.hstack([edges[:, -1:], far]))[0][:, 0]
    return BatchedLosses(step=step, base=base, masses=masses, infinite=beyond)


def _bulk_loss(rows: Rows, step: Array) -> Array:
    """The mean loss when the unit was not drawn: on the grid, where it costs nothing."""
    middle = rows.loss(np.zeros((len(step), 1)))
    edges = rows.output(np.hstack([middle - step[:, None], middle + step[:, None]]))
    numerator, denominator, _ = rows.cells(edges)
    return np.asarray(np.log(numerator / denominator)[:, 0])


def _normal_cells(edges: Array) -> Array:
    """Standard normal mass between consecutive edges, from the nearer tail."""
    tail = ndtr(-np.minimum(np.abs(edges), _FAR))
    left, right = edges[:, :-1], edges[:, 1:]
    inner = np.where(left >= 0, tail[:, :-1] - tail[:, 1:], tail[:, 1:] - tail[:, :-1])
    around = (left < 0) & (right > 0)
    return np.asarray(np.where(around, 1 - tail[:, :-1] - tail[:, 1:], inner))
