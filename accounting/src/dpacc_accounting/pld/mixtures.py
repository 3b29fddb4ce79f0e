"""The privacy loss of a mixture: one of several compositions, chosen by a coin that is hidden.

With P_i and Q_i the outputs of branch i on neighbouring datasets, and w_i its chance, a hidden
coin gives `P = Σ w_i·P_i` and `Q = Σ w_i·Q_i`. For every t, joint convexity says

    E_Q[(dP/dQ − t)_+]  <=  Σ w_i · E_{Q_i}[(dP_i/dQ_i − t)_+]

and the right-hand side is the pair with the coin revealed. So the mixture of the branches' privacy
losses dominates, and it composes like any dominating pair. A branch that does nothing loses 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from dpacc_accounting.pld.dominating_pairs import Pair
from dpacc_accounting.pld.privacy_losses import (
    AtomicLoss,
    Atoms,
    PrivacyLoss,
    composed_atoms,
    on_grid,
)
from dpacc_accounting.pld.saddlepoint import Cumulants

# Points of a branch's own grid: a direct convolution takes their square.
_LARGEST_BRANCH = 1 << 14
_LEAST_POINTS = 1 << 11
# Rounding error of Σ m·e^(−loss), far above what is observed.
_SUM_ERROR = 1e-13


@dataclass(frozen=True)
class Branch:
    """A composition that may run: its laws, and how often each is released."""

    laws: tuple[Pair | PrivacyLoss, ...]
    times: tuple[int, ...]

    @property
    def grids(self) -> int:
        """How many roundings to a grid it amounts to."""
        return sum(
            n * getattr(law, "grids", 1) for law, n in zip(self.laws, self.times, strict=True)
        )

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """Its privacy loss, from above or from below, on a grid no finer than it can afford."""
        single = self._single()
        if single:
            return single.atoms(step=step, outside=outside, above=above).whole(above=above)
        width = self.width(outside=outside)
        coarse = step * max(math.ceil(width / (step * _LARGEST_BRANCH)), 1)
        parts = [
            (on_grid(law=law, step=coarse, outside=outside, above=above), n)
            for law, n in zip(self.laws, self.times, strict=True)
        ]
        return composed_atoms(parts=parts, outside=outside, above=above).whole(above=above)

    def width(self, *, outside: float) -> float:
        """Chernoff's bounds on where its loss lies, apart: an estimate, for planning."""
        if not self.laws:
            return 0.0
        cumulants = self._cumulants(outside)
        tilts = np.geomspace(1e-2, 1e4, 25).tolist()
        rare = -math.log(outside)
        top = min((cumulants.at(tilt)[0] + rare) / tilt for tilt in tilts)
        bottom = max(-(cumulants.at(-tilt)[0] + rare) / tilt for tilt in tilts)
        return float(top - bottom)

    def fine_step(self, *, outside: float) -> float:
        """A grid that changes the variance of the loss by a percent at most."""
        if not self.laws:
            return math.inf
        single = self._single()
        if single:
            return single.fine_step(outside=outside)
        variance = self._cumulants(outside).at(0.0)[2]
        by_width = self.width(outside=outside) / _LEAST_POINTS
        return min(by_width, math.sqrt(0.06 * variance / self.grids) + 1e-12)

    def _single(self) -> AtomicLoss | None:
        """The only law, released once, where it needs no grid."""
        law = self.laws[0] if self.times == (1,) else None
        return law if isinstance(law, AtomicLoss) else None

    def _cumulants(self, outside: float) -> Cumulants:
        return Cumulants(pairs=self.laws, times=self.times, outside=outside)


@dataclass(frozen=True)
class MixedLoss(AtomicLoss):
    """The privacy loss of a mixture with its coin revealed.

    Args:
        weights: the chance of each branch, adding up to 1.
        branches: what may run.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647); Zhu, Dong & Wang 2022
    (arXiv 2106.08567), on composing dominating pairs.
    """

    weights: tuple[float, ...]
    branches: tuple[Branch, ...]

    @property
    def grids(self) -> int:
        """The most roundings that a branch amounts to, and one for the mixture's own grid."""
        return 1 + max(branch.grids for branch in self.branches)

    @property
    def most_points(self) -> int:
        """No more than a branch's own grid has."""
        return _LARGEST_BRANCH

    def fine_step(self, *, outside: float) -> float:
        """Fine enough for every branch."""
        return min(branch.fine_step(outside=outside) for branch in self.branches)

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The branches' losses, from above or from below, each as likely as its branch."""
        parts = [b.atoms(step=step, outside=outside, above=above) for b in self.branches]
        return Atoms(
            np.concatenate([part.losses for part in parts]),
            np.concatenate([w * part.masses for w, part in zip(self.weights, parts, strict=True)]),
            math.fsum(w * part.infinite for w, part in zip(self.weights, parts, strict=True)),
        )


class BranchLoss(AtomicLoss):
    """The loss of one branch after sampling, which only draws its losses together."""

    branch: Branch

    @property
    def grids(self) -> int:
        """The branch's, and its own."""
        return 1 + self.branch.grids

    @property
    def most_points(self) -> int:
        """No more than a branch's own grid has."""
        return _LARGEST_BRANCH

    def fine_step(self, *, outside: float) -> float:
        """Fine enough for the branch."""
        return self.branch.fine_step(outside=outside)


@dataclass(frozen=True)
class SampledLoss(BranchLoss):
    """The privacy loss of a composition that is run on a Poisson sample, add-or-remove.

    With (P, Q) dominating for removal, `((1 − q)Q + qP, Q)` does after sampling; with (P, Q)
    dominating for addition, `(P, (1 − q)P + qQ)` does.

    In terms of the curve h of (P, Q), with h(s) = P − s·Q for s < 0, the sampled curve is

        removal:   q·h((t − (1 − q))/q)
        addition:  (1 − t(1 − q))·h(tq/(1 − t(1 − q))), and 0 from t = 1/(1 − q) on

    which grows with h. Below t = 1 − q the first one needs all of Q, also where P has nothing left
    or was cut: there the loss is ln(1 − q), and forgetting it would lose mass of P.

    Args:
        probability: q in (0, 1).
        branch: what is run on the sample, in the same direction.
        adding: whether Q is the output with the unit.

    Source: Zhu, Dong & Wang 2022 (arXiv 2106.08567), theorem 11.
    """

    probability: float
    branch: Branch
    adding: bool

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The branch's losses, from above or from below, after sampling."""
        whole, q = self.branch.atoms(step=step, outside=outside, above=above), self.probability
        sign = -1.0 if self.adding else 1.0
        losses = sign * np.logaddexp(math.log1p(-q), math.log(q) + sign * whole.losses)
        if self.adding:
            # Where Q has no mass, the loss is at most −ln(1 − q).
            end, lost = -math.log1p(-q), whole.infinite
            return Atoms(np.append(losses, end), np.append(whole.masses, lost), 0.0)
        whole, unmatched = _completed(whole, above=above)
        mixed = whole.masses * ((1 - q) * np.exp(-whole.losses) + q)
        return Atoms(
            np.append(losses, math.log1p(-q)),
            np.append(mixed, (1 - q) * unmatched),
            q * whole.infinite,
        )


def _completed(law: Atoms, *, above: bool) -> tuple[Atoms, float]:
    """`law`, and the mass of Q that is at none of its losses: together no less than 1, or no more.

    A law from below may have a little more of Q than there is, and is then scaled down.
    """
    matched = math.fsum(law.masses * np.exp(-law.losses))
    if above:
        return law, max(1 - matched, 0.0) + _SUM_ERROR
    most = 1 - _SUM_ERROR
    if matched <= most:
        return law, most - matched
    return replace(law, masses=law.masses * (most / matched)), 0.0
