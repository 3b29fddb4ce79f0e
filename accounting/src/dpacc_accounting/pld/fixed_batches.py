"""The privacy loss of a batch of fixed size, drawn without replacement, under replace-one.

For t >= 1 the curve of `((1 − γ)Q + γP, Q)` dominates, γ being the share that is drawn; for t < 1
the mirrored one does, because neighbours may be swapped. Both are one law: the positive losses, the
same mirrored, and the rest at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.pld.mixtures import Branch, BranchLoss
from dpacc_accounting.pld.privacy_losses import Atoms

# Rounding error of a sum of masses, far above what is observed.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class FixedBatchLoss(BranchLoss):
    """The loss of `branch`, run on a share γ of the units, under replace-one adjacency.

    Args:
        share: γ in (0, 1).
        branch: what is run on the batch, under replace-one adjacency.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647), theorem 10; Zhu, Dong & Wang 2022
    (arXiv 2106.08567), theorem 11.
    """

    share: float
    branch: Branch

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The branch's losses, from above or from below, after sampling and mirrored."""
        whole, share = self.branch.atoms(step=step, outside=outside, above=above), self.share
        positive = whole.losses > 0
        losses, masses = whole.losses[positive], whole.masses[positive]
        sampled = np.logaddexp(math.log1p(-share), math.log(share) + losses)
        grown = masses * ((1 - share) * np.exp(-losses) + share)
        if not above:
            grown = _at_most_half(sampled, grown)
        mirrored = grown * np.exp(-sampled)
        rest = 1 - math.fsum(grown) - math.fsum(mirrored) - share * whole.infinite
        return Atoms(
            np.concatenate([sampled, -sampled, np.zeros(1)]),
            np.concatenate([grown, mirrored, np.array([max(rest, 0.0)])]),
            share * whole.infinite,
        )


def _at_most_half(losses: Array, masses: Array) -> Array:
    """`masses`, less what stands nearest to 0 of more than P's whole mass, mirror images counted.

    A law from below on a coarse grid may hold too much there: taking mass away lowers every δ.
    """
    nearest = np.argsort(losses)
    both = (masses * (1 + np.exp(-losses)))[nearest]
    excess = both.sum() - 1 + _ROUNDING
    if excess <= 0:
        return masses
    gone = np.clip(excess - (np.cumsum(both) - both), 0.0, both)
    kept = masses.copy()
    kept[nearest] *= 1 - gone / np.where(both > 0, both, 1.0)
    return kept
