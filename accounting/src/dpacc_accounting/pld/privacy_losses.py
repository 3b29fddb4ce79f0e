"""A privacy loss that is known only by its probabilities, moved onto a grid with certainty."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dpacc_accounting.pld.connect_the_dots import (
    DiscretizedLoss,
    discretized_above,
    discretized_below,
    lowered,
)
from dpacc_accounting.pld.dominating_pairs import Array, Pair

# What rounding may take from a law's mass from above, or add to it from below, where curves on
# fine grids are differentiated twice: far above what is observed.
_LACKING, _EXCEEDING = 1e-11, 1e-8
# Relative error of a probability that passes through a few roundings, far above what is observed.
_ROUNDING = 1e-13
# Losses of one mechanism are not cut more finely than into so many.
_MOST_POINTS = 1 << 15


class PrivacyLoss(Protocol):
    """One release in one direction (who is P, who is Q), as composition needs it."""

    @property
    def grids(self) -> int:
        """How many roundings to a grid one release amounts to: a plan, not a bound."""

    @property
    def most_points(self) -> int:
        """Into how many grid points its losses may usefully be cut."""

    def discretized_above(self, *, step: float, outside: float) -> DiscretizedLoss:
        """A law on the grid of `step` that dominates this one; see `connect_the_dots`."""

    def discretized_below(self, *, step: float, outside: float) -> DiscretizedLoss:
        """A law on the grid of `step` that this one dominates."""

    def quadrature(self, *, outside: float) -> tuple[Array, Array]:
        """Finite losses and their P masses, for estimates only."""


@dataclass(frozen=True)
class Atoms:
    """A privacy loss with finitely many values, in any order, equal ones allowed.

    Args:
        losses: the finite values of `ln dP/dQ`.
        masses: probability under P of each.
        infinite: probability under P of an infinite loss.
    """

    losses: Array
    masses: Array
    infinite: float

    def whole(self, *, above: bool) -> Atoms:
        """This law, all of P's mass counted; see `whole_scale`.

        >>> Atoms(np.zeros(1), np.array([0.75]), 0.25).whole(above=True).infinite
        0.25
        """
        scale = whole_scale(mass=math.fsum(self.masses.tolist()) + self.infinite, above=above)
        return replace(self, masses=scale * self.masses)

    def above(self, *, step: float) -> DiscretizedLoss:
        """A law on the multiples of `step` that dominates this one.

        Each value is split between its neighbours on the grid, so that both its P and its Q mass
        are kept: the hockey-stick curve is joined by straight lines (arXiv 2207.04380).

        >>> law = Atoms(np.array([0.5]), np.array([1.0]), 0.0).above(step=1.0)
        >>> law.first, law.masses.round(3).tolist()
        (-1, [0.0, 0.378, 0.622, 0.0])
        """
        first, left, right = self._shares(step)
        masses = np.append(left, 0.0) + np.append(0.0, right)
        return DiscretizedLoss(step, 0.0, first, masses * (1 + _ROUNDING), self.infinite)

    def below(self, *, step: float) -> DiscretizedLoss:
        """A law on the multiples of `step` that this one dominates."""
        first, left, right = self._shares(step)
        masses = np.append(left, 0.0) + np.append(0.0, right)
        losses = step * (first + np.arange(float(len(masses))))
        masses = lowered(masses=masses, losses=losses, left=left, right=right)
        return DiscretizedLoss(step, 0.0, first, masses * (1 - _ROUNDING), 0.0)

    def _shares(self, step: float) -> tuple[int, Array, Array]:
        """The first cell, and what each cell's lower and upper end gets."""
        cells = np.floor(self.losses / step).astype(np.int64)
        first = int(cells.min(initial=0)) - 1
        above = np.clip(self.losses - step * cells, 0.0, step)
        upper = self.masses * (np.expm1(-above) / math.expm1(-step))
        size = int(cells.max(initial=0)) - first + 2
        right: Array = np.bincount(cells - first, upper, size).astype(np.float64)
        left: Array = np.bincount(cells - first, self.masses - upper, size).astype(np.float64)
        return first, left, right


def whole_scale(*, mass: float, above: bool) -> float:
    """By what to multiply a law of P mass `mass`, with what was cut, to repair its rounding.

    A law from above needs all of P, one from below may have no more than P: what it lacks, or has
    too much, would be compounded by every composition.

    Raises:
        ArithmeticError: more is missing, or too much, than rounding explains.

    >>> whole_scale(mass=1 + 1e-13, above=True), whole_scale(mass=0.5, above=False)
    (1.0, 1.0)
    >>> whole_scale(mass=0.9, above=True)
    Traceback (most recent call last):
    ArithmeticError: a privacy loss has mass 0.9 from above, not 1: nothing can be priced with it
    """
    error = 1 - mass if above else mass - 1
    if not error <= (_LACKING if above else _EXCEEDING):
        side = "above" if above else "below"
        raise ArithmeticError(
            f"a privacy loss has mass {mass!r} from {side}, not 1: nothing can be priced with it"
        )
    return 1 / mass if error > 0 else 1.0


def on_grid(
    *, law: Pair | PrivacyLoss, step: float, outside: float, above: bool
) -> DiscretizedLoss:
    """A law on the grid of `step` that dominates `law`, or that it dominates, all mass counted."""
    if isinstance(law, Pair):
        make = discretized_above if above else discretized_below
        found = make(pair=law, step=step, outside=outside)
    else:
        found = (law.discretized_above if above else law.discretized_below)(
            step=step, outside=outside
        )
    scale = whole_scale(mass=math.fsum(found.masses.tolist()) + found.infinite, above=above)
    return replace(found, masses=scale * found.masses)


class AtomicLoss(ABC):
    """A law that can list its losses, from above and from below, before any grid."""

    @property
    def grids(self) -> int:
        """One rounding, where what is listed was on no grid before."""
        return 1

    @property
    def most_points(self) -> int:
        """As many as are cheap."""
        return _MOST_POINTS

    @abstractmethod
    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """Losses that dominate it, or that it dominates, cut about as finely as `step`."""

    @abstractmethod
    def fine_step(self, *, outside: float) -> float:
        """A cut that is fine enough for estimates."""

    def discretized_above(self, *, step: float, outside: float) -> DiscretizedLoss:
        """A law on the grid of `step` that dominates this one."""
        return self.atoms(step=step, outside=outside, above=True).above(step=step)

    def discretized_below(self, *, step: float, outside: float) -> DiscretizedLoss:
        """A law on the grid of `step` that this one dominates."""
        return self.atoms(step=step, outside=outside, above=False).below(step=step)

    def quadrature(self, *, outside: float) -> tuple[Array, Array]:
        """Finite losses and their P masses, for estimates only."""
        step = self.fine_step(outside=outside)
        atoms = self.atoms(step=step, outside=outside, above=True)
        possible = atoms.masses > 0
        return atoms.losses[possible], atoms.masses[possible]


def composed_atoms(
    *, parts: list[tuple[DiscretizedLoss, int]], outside: float, above: bool
) -> Atoms:
    """The sum of independent losses, all on grids of one step, each taken so many times.

    Convolved directly: all terms are positive, so that every probability has relative accuracy,
    and what rounding can do is added to the masses (above) or taken off.

    Args:
        parts: laws on a grid and how often each is released.
        outside: mass that each end may lose at every convolution; above, the upper end becomes an
            infinite loss and the lower end is lifted, below, both are dropped.
        above: whether the result dominates, or is dominated.

    >>> coin = DiscretizedLoss(1.0, 0.0, -1, np.array([0.25, 0.0, 0.75]), 0.0)
    >>> total = composed_atoms(parts=[(coin, 2)], outside=0.0, above=True)
    >>> total.masses.round(4).tolist(), total.losses.tolist()
    ([0.0625, 0.0, 0.375, 0.0, 0.5625], [-2.0, -1.0, 0.0, 1.0, 2.0])
    """
    step = parts[0][0].step if parts else 1.0
    total = DiscretizedLoss(step, 0.0, 0, np.ones(1), 0.0)
    for part, times in parts:
        power, left = part, times
        while left:
            if left % 2:
                total = _sum(total, power, outside, above)
            left //= 2
            power = _sum(power, power, outside, above) if left else power
    return Atoms(total.losses(), total.masses, min(total.infinite, 1.0))


def _sum(
    one: DiscretizedLoss, other: DiscretizedLoss, outside: float, above: bool
) -> DiscretizedLoss:
    masses = np.convolve(one.masses, other.masses)
    error = 1e-15 * (min(len(one.masses), len(other.masses)) + 4)
    masses *= 1 + error if above else 1 - error
    low = int(np.searchsorted(np.cumsum(masses), outside))
    high = len(masses) - int(np.searchsorted(np.cumsum(masses[::-1]), outside))
    high = max(high, 1)
    low = min(low, high - 1)
    kept = masses[low:high].copy()
    infinite = 0.0
    if above:
        kept[0] += masses[:low].sum()
        infinite = one.infinite + other.infinite + float(masses[high:].sum())
    first = one.first + other.first + low
    return DiscretizedLoss(one.step, one.shift + other.shift, first, kept, infinite)
