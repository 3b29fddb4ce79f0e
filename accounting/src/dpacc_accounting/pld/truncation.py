"""The privacy loss of a Poisson sample that is cut to a largest batch.

Let K of the others be drawn. While K < B, the unit joins with chance q and moves the sum by C. Once
K >= B, the batch is B others, drawn uniformly whatever K is, and the unit takes the place of one of
them with chance

    p = E[q·B/(K + 1) | K >= B] = B/N · P(Bin(N, q) > B) / P(Bin(N − 1, q) >= B)

which moves the sum by up to 2C. K is the same with and without the unit: by joint convexity, the
mixture of the two cases with K >= B revealed dominates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betainc

from dpacc_accounting.events.event import TruncatedPoissonSampled
from dpacc_accounting.events.flattening import Release, single_noise
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.connect_the_dots import (
    DiscretizedLoss,
    discretized_above,
    discretized_below,
)
from dpacc_accounting.pld.dominating_pairs import Array, Pair, dominating_pairs
from dpacc_accounting.pld.privacy_losses import AtomicLoss, Atoms

# Relative error of a binomial's tail, far above what is observed.
_TAIL_ERROR = 1e-9
_MOST_POINTS = 1 << 21
_FINE_POINTS = 1 << 16
# From below, a case that comes less often than this is left out.
_RARE = 1e-6


@dataclass(frozen=True)
class TruncatedLoss(AtomicLoss):
    """The loss of one truncated Poisson sample: a mixture whose weights are known to 1e-9.

    Args:
        weights: the chance of each case.
        pairs: what dominates it.
    """

    weights: tuple[float, ...]
    pairs: tuple[Pair, ...]

    @property
    def grids(self) -> int:
        """A case's own grid, and the mixture's."""
        return 2

    @property
    def most_points(self) -> int:
        """As many as a pair may have."""
        return _MOST_POINTS

    def fine_step(self, *, outside: float) -> float:
        """A small part of the losses' range."""
        return float(np.ptp(self.quadrature(outside=outside)[0])) / _FINE_POINTS

    def quadrature(self, *, outside: float) -> tuple[Array, Array]:
        """Both cases' losses over their outputs, for estimates only."""
        found = []
        for weight, pair in zip(self.weights, self.pairs, strict=True):
            low, high = pair.range_holding(outside=outside)
            z = np.linspace(low, high, math.ceil((high - low) * max(5.0, 2 * pair.shift)) + 1)
            found.append((pair.loss(z), weight * pair.numerator_density(z) * (z[1] - z[0])))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """Each case's losses, a little more likely than they are above, and less below."""
        parts = self._parts(step, outside, above)
        return Atoms(
            np.concatenate([part.losses() for part in parts]),
            np.concatenate([part.masses for part in parts]),
            math.fsum(part.infinite for part in parts),
        )

    def discretized_above(self, *, step: float, outside: float) -> DiscretizedLoss:
        """On the grid of the likelier case, whose bulk it meets."""
        main, *others = self._parts(step, outside, above=True)
        for other in others:
            moved = Atoms(other.losses() - main.shift, other.masses, other.infinite)
            main = _added(main, moved.above(step=step))
        return main

    def discretized_below(self, *, step: float, outside: float) -> DiscretizedLoss:
        """The likelier case alone, where the other one hardly ever comes."""
        if max(self.weights) < 1 - _RARE:
            return super().discretized_below(step=step, outside=outside)
        return self._parts(step, outside, above=False)[0]

    def _parts(self, step: float, outside: float, above: bool) -> list[DiscretizedLoss]:
        """Each case on a grid of its own, times its chance; the likelier one first."""
        error = 1 + (_TAIL_ERROR if above else -_TAIL_ERROR)
        make = discretized_above if above else discretized_below
        cases = sorted(zip(self.weights, self.pairs, strict=True), key=lambda case: -case[0])
        found = []
        for weight, pair in cases:
            case = make(pair=pair, step=step, outside=outside)
            share = weight * error
            found.append(replace(case, masses=share * case.masses, infinite=share * case.infinite))
        return found


def _added(one: DiscretizedLoss, other: DiscretizedLoss) -> DiscretizedLoss:
    """Both masses on one grid, in the place of `one`."""
    first = min(one.first, other.first)
    last = max(one.first + len(one.masses), other.first + len(other.masses))
    masses = np.zeros(last - first)
    for part in (one, other):
        masses[part.first - first :][: len(part.masses)] += part.masses
    return replace(one, first=first, masses=masses, infinite=one.infinite + other.infinite)


def truncated_loss(
    *, event: TruncatedPoissonSampled, adjacency: Adjacency, direction: int
) -> TruncatedLoss:
    """The loss of `event` in one direction; see `dominating_pairs` for which.

    Source: arXiv 2508.15089.

    >>> from dpacc_accounting import Gaussian
    >>> cut = TruncatedPoissonSampled(probability=0.5, largest_batch=1, dataset_size=2,
    ...                               event=Gaussian(noise_multiplier=2.0))
    >>> where = Adjacency.ADD_OR_REMOVE
    >>> truncated_loss(event=cut, adjacency=where, direction=0).weights
    (0.5, 0.5)
    """
    require_room(event=event, adjacency=adjacency)
    cases = truncation_cases(event=event)
    pairs = (dominating_pairs(release=case, adjacency=adjacency)[direction] for _, case in cases)
    return TruncatedLoss(tuple(chance for chance, _ in cases), tuple(pairs))


def require_room(*, event: TruncatedPoissonSampled, adjacency: Adjacency) -> None:
    """Refuse a batch that may be full where a null unit would take another's place in it.

    Raises:
        ValueError: with the remedy.
    """
    if adjacency is Adjacency.ZERO_OUT and event.may_be_full and event.probability > 0:
        raise ValueError(
            "TruncatedPoissonSampled is not priced under zero-out adjacency, where a null unit "
            "takes another's place; pass adjacency=Adjacency.ADD_OR_REMOVE, or price "
            "without_amplification(event=...)"
        )


def truncation_cases(*, event: TruncatedPoissonSampled) -> list[tuple[float, Release]]:
    """What is released while the batch has room, and once it is full, each with its chance.

    A unit that takes another's place moves the sum by 2C: the same as C under half the noise.

    >>> from dpacc_accounting import Gaussian
    >>> truncation_cases(event=TruncatedPoissonSampled(probability=0.5, largest_batch=1,
    ...                  dataset_size=2, event=Gaussian(noise_multiplier=2.0)))
    [(0.5, Release(probability=0.5, noise_multiplier=2.0)), (0.5, Release(probability=0.25, \
noise_multiplier=1.0))]
    """
    sigma, q = single_noise(event=event), event.probability
    size, most = event.dataset_size, event.largest_batch
    full = float(betainc(most, size - most, q))
    cases = [(1 - full, Release(q, sigma))]
    if full > 0:
        share = most / size * float(betainc(most + 1, size - most, q)) / full
        cases.append((full, Release(min(share, 1.0), sigma / 2)))
    return [(chance, case) for chance, case in cases if chance > 0]
