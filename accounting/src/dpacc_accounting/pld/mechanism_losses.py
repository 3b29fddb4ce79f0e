"""Privacy losses of Laplace, integer and bounded-range mechanisms, and of their Poisson samples.

Additive noise with a log-concave density has a privacy loss that falls with the output, so that
`δ(ε) = P(k <= c) − e^ε·P(k <= c − shift)` grows with the shift: the largest one dominates. Swapping
P and Q mirrors the output, and leaves the loss's law as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ive

from dpacc_accounting.events.mechanisms import (
    DiscreteGaussian,
    ExponentialMechanism,
    Laplace,
    Mechanism,
    Skellam,
)
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.connect_the_dots import lowered
from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.pld.privacy_losses import AtomicLoss, Atoms

# More integers than this are not tabulated.
_MOST_INTEGERS = 1 << 20
# Relative error of tabulated chances, far above what is observed.
_TABLE_ERROR = 1e-12


@dataclass(frozen=True)
class MechanismLoss(AtomicLoss):
    """The privacy loss of one mechanism, the same in both directions."""

    mechanism: Mechanism
    adjacency: Adjacency

    def fine_step(self, *, outside: float) -> float:
        """A small part of the losses' range."""
        match self.mechanism:
            case Laplace(noise_multiplier=scale):
                return 2 * self._reach / scale / 4000
            case ExponentialMechanism(epsilon=width):
                return 2 * width / 4000
            case DiscreteGaussian(sigma=sigma, sensitivity=most):
                return most * self._reach * math.sqrt(-math.log(outside)) / sigma / 2000
            case Skellam(variance=variance, sensitivity=most):
                return most * self._reach * math.sqrt(-math.log(outside) / variance) / 2000

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The loss, from above or from below."""
        match self.mechanism:
            case Laplace(noise_multiplier=scale):
                return _laplace(self._reach / scale, step, above)
            case ExponentialMechanism(epsilon=width):
                return _bounded_range(width, step, above)
            case DiscreteGaussian(sigma=sigma, sensitivity=most):
                return _integers(sigma**2, most * self._reach, outside, above, skellam=False)
            case Skellam(variance=variance, sensitivity=most):
                return _integers(variance, most * self._reach, outside, above, skellam=True)

    @property
    def _reach(self) -> int:
        return 2 if self.adjacency is Adjacency.REPLACE_ONE else 1


def _laplace(shift: float, step: float, above: bool) -> Atoms:
    """`Laplace(0, 1)` against `Laplace(shift, 1)`: losses end at ±shift, where P has atoms."""
    edges = _edges(shift, step)
    inner = _cells(edges, 0.5 * np.exp((edges[1:] - shift) / 2), above)
    ends = np.array([-shift, shift])
    return Atoms(
        np.append(ends, inner.losses),
        np.append(np.array([0.5 * math.exp(-shift), 0.5]), inner.masses),
        0.0,
    )


def _bounded_range(width: float, step: float, above: bool) -> Atoms:
    """The curve `h(t) = (1 − √(t·e^(−ε)))² / (1 − e^(−ε))`, the upper envelope over all choices.

    Its tails are `P(loss > x) = (1 − a·e^(x/2))/(1 − a²)`, `Q(loss > x) = (a·e^(−x/2) − a²)/(1 −
    a²)` with a = e^(−ε/2).
    """
    edges = _edges(width, step)
    return _cells(edges, np.exp((edges[1:] - width) / 2) / -math.expm1(-width), above)


def _edges(reach: float, step: float) -> Array:
    """Edges of at most `step` that divide [−reach, reach] evenly."""
    return np.linspace(-reach, reach, 2 * max(math.ceil(reach / step), 1) + 1)


def _cells(edges: Array, growth: Array, above: bool) -> Atoms:
    """A loss of P density ∝ e^(x/2), moved to its cells' ends, from above or from below.

    Args:
        edges: of the cells, evenly spaced.
        growth: P mass of a cell of width h, divided by 1 − e^(−h/2).
        above: whether the result dominates, or is dominated.
    """
    step = float(edges[-1] - edges[0]) / (len(edges) - 1)
    numerator = growth * -math.expm1(-step / 2)
    right = numerator / (1 + math.exp(-step / 2))
    left = numerator - right
    masses = np.append(left, 0.0) + np.append(0.0, right)
    if not above:
        masses = lowered(masses=masses, losses=edges, left=left, right=right)
    return Atoms(edges, masses * (1 + (_TABLE_ERROR if above else -_TABLE_ERROR)), 0.0)


def _integers(variance: float, shift: int, outside: float, above: bool, *, skellam: bool) -> Atoms:
    """Symmetric integer noise against itself moved by `shift`."""
    # Both noises are at least as thin-tailed as e^(−r²/2(variance + r)).
    rare = math.log(4 / outside)
    reach = math.ceil(rare + math.sqrt(rare**2 + 2 * rare * variance)) + 1
    if reach + shift > _MOST_INTEGERS:
        raise ValueError(
            f"noise of variance {variance} spreads over {2 * reach} integers, more than are "
            "tabulated; use a coarser granularity"
        )
    k = np.arange(-reach - shift, reach + 1.0)
    if skellam:
        log_chance = np.log(np.maximum(ive(np.abs(k), variance), 1e-320))
    else:
        log_chance = -(k**2) / (2 * variance)
        log_chance -= math.log(math.fsum(np.exp(log_chance)))
    masses = np.exp(log_chance[shift:])
    losses = log_chance[shift:] - log_chance[: len(masses)]
    likely = masses > outside / (8 * len(masses))
    error = _TABLE_ERROR if above else -_TABLE_ERROR
    found = losses[likely] + error, masses[likely] * (1 + error)
    return Atoms(*found, outside if above else 0.0)
