"""Privacy losses that are a short list: what each outcome tells, and how likely it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.events.finite_mechanisms import (
    ApproximateDP,
    DiscreteLaplace,
    FiniteMechanism,
    PermuteAndFlip,
    RandomizedResponse,
    TruncatedDiscreteGaussian,
)
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.pld.privacy_losses import AtomicLoss, Atoms

LARGEST_TABLE = 1 << 18
"""More losses than these are not listed."""
# A chance that is positive, however small: what a double rounds to 0 is not promised to be none.
_LEAST_CHANCE = 1e-300
# Relative error of listed losses and chances, far above what is observed.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class FiniteLoss(AtomicLoss):
    """The privacy loss of one mechanism with few outcomes, the same in both directions."""

    mechanism: FiniteMechanism
    adjacency: Adjacency

    def fine_step(self, *, outside: float) -> float:
        """A small part of the losses' range."""
        losses, _, _ = outcomes(mechanism=self.mechanism, adjacency=self.adjacency)
        return max(float(losses.max()), 1e-12) / 2000

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The losses, from above or from below."""
        mechanism = self.mechanism
        if not above and isinstance(mechanism, PermuteAndFlip):
            losses, masses, infinite = _turned_round(mechanism.epsilon)
        else:
            losses, masses, infinite = outcomes(mechanism=mechanism, adjacency=self.adjacency)
        if isinstance(mechanism, TruncatedDiscreteGaussian):
            # Rare outcomes have losses that no grid holds.
            likely = masses > outside / (8 * len(masses))
            infinite += math.fsum(masses[~likely]) if above else 0.0
            losses, masses = losses[likely], masses[likely]
        error = _ROUNDING if above else -_ROUNDING
        return Atoms(losses + error * np.abs(losses), masses * (1 + error), infinite * (1 + error))


def outcomes(*, mechanism: FiniteMechanism, adjacency: Adjacency) -> tuple[Array, Array, float]:
    """Losses, their chances under P, and that of an infinite loss, of a pair that dominates.

    Raises:
        ValueError: no pair is known under `adjacency`.

    >>> losses, masses, lost = outcomes(mechanism=ApproximateDP(epsilon=1.0, delta=0.5),
    ...                                 adjacency=Adjacency.ADD_OR_REMOVE)
    >>> losses.tolist(), masses.round(4).tolist(), lost
    ([1.0, -1.0], [0.3655, 0.1345], 0.5)
    """
    replaced = adjacency is Adjacency.REPLACE_ONE
    match mechanism:
        case ApproximateDP(epsilon=epsilon, delta=delta):
            losses, masses = _one_bit(epsilon)
            return losses, masses * (1 - delta), delta
        case PermuteAndFlip(epsilon=epsilon):
            return *_one_bit(epsilon), 0.0
        case RandomizedResponse(noise=noise, options=options):
            require_replacing(adjacency)
            each = noise / options
            told = math.log1p((1 - noise) / each)
            chances = np.array([1 - noise + each, each, (options - 2) * each])
            return np.array([told, -told, 0.0]), chances, 0.0
        case DiscreteLaplace(decay=decay, sensitivity=most):
            return *_discrete_laplace(decay, most * (2 if replaced else 1)), 0.0
        case TruncatedDiscreteGaussian(sigma=sigma, sensitivity=most, bound=bound):
            return _truncated_gaussian(sigma, most * (2 if replaced else 1), bound)


def require_replacing(adjacency: Adjacency) -> None:
    """Refuse to price one unit's answer under add-or-remove adjacency.

    Raises:
        ValueError: with the remedy.
    """
    if adjacency is not Adjacency.REPLACE_ONE:
        raise ValueError(
            "RandomizedResponse is priced under replace-one adjacency, because an answer shows "
            "that its unit is there; pass adjacency=Adjacency.REPLACE_ONE"
        )


def _one_bit(epsilon: float) -> tuple[Array, Array]:
    truth = 1 / (1 + math.exp(-epsilon))
    return np.array([epsilon, -epsilon]), np.array([truth, truth * math.exp(-epsilon)])


def _turned_round(epsilon: float) -> tuple[Array, Array, float]:
    """Permute-and-flip between two candidates, one ahead by Δ, then the other.

    The first to be drawn is taken for certain if it leads, else with chance e^(−ε/2).
    """
    behind = math.exp(-epsilon / 2) / 2
    told = math.log1p(-behind) - math.log(behind)
    return np.array([told, -told]), np.array([1 - behind, behind]), 0.0


def _discrete_laplace(decay: float, shift: int) -> tuple[Array, Array]:
    """Noise k against itself moved by `shift`: `decay·(|k − shift| − |k|)`."""
    between = np.arange(1.0, float(shift))
    end = 1 / (1 + math.exp(-decay))
    losses = np.concatenate([[decay * shift, -decay * shift], decay * (float(shift) - 2 * between)])
    inner = math.tanh(decay / 2) * np.exp(-decay * between)
    return losses, np.concatenate([[end, end * math.exp(-decay * shift)], inner])


def _truncated_gaussian(sigma: float, shift: int, bound: int) -> tuple[Array, Array, float]:
    """Noise k, |k| <= bound, against itself moved by `shift`: `shift·(shift − 2k)/2σ²`.

    Below `shift − bound` the moved noise has no outcomes.

    Raises:
        ValueError: there are too many outcomes to list.
    """
    if 2 * bound + 1 > LARGEST_TABLE:
        raise ValueError(
            f"noise of at most {bound} has {2 * bound + 1} outcomes, more than are listed; use a "
            "coarser granularity"
        )
    k = np.arange(-float(bound), bound + 1.0)
    chances = np.exp(-(k**2) / (2 * sigma**2))
    chances /= math.fsum(chances)
    shared = k >= shift - bound
    infinite = max(math.fsum(chances[~shared]), _LEAST_CHANCE)
    if not shared.any():
        return np.zeros(1), np.zeros(1), 1.0
    losses = shift * (shift - 2 * k[shared]) / (2 * sigma**2)
    return losses, chances[shared], infinite
