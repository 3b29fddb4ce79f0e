"""The privacy loss of a Poisson sample that is cut to a largest batch.

Let K of the others be drawn. While K < B, the unit joins with chance q and moves the sum by C. Once
K >= B, the batch is B others, drawn uniformly whatever K is, and the unit takes the place of one of
them with chance

    p = E[q·B/(K + 1) | K >= B] = B/N · P(Bin(N, q) > B) / P(Bin(N − 1, q) >= B)

which moves the sum by up to 2C. K is the same with and without the unit: by joint convexity, the
mixture of the two cases with K >= B revealed dominates.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import betainc

from dpacc_accounting.composition import Release, single_noise
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.laws import AtomicLaw, Atoms
from dpacc_accounting.mixing import Branch, MixedLaw
from dpacc_accounting.pairs import dominating_pairs
from dpacc_accounting.sampled_events import TruncatedPoissonSampled

# Relative error of a binomial's tail, far above what is observed.
_TAIL_ERROR = 1e-9


@dataclass(frozen=True)
class TruncatedLaw(AtomicLaw):
    """The loss of one truncated Poisson sample: a mixture whose weights are known to 1e-9.

    Args:
        mixed: the two cases.
    """

    mixed: MixedLaw

    @property
    def grids(self) -> int:
        """The mixture's."""
        return self.mixed.grids

    @property
    def most_points(self) -> int:
        """The mixture's."""
        return self.mixed.most_points

    def fine_step(self, *, outside: float) -> float:
        """The mixture's."""
        return self.mixed.fine_step(outside=outside)

    def atoms(self, *, step: float, outside: float, above: bool) -> Atoms:
        """The mixture's losses, each a little more likely above, and less below."""
        found = self.mixed.atoms(step=step, outside=outside, above=above)
        error = 1 + (_TAIL_ERROR if above else -_TAIL_ERROR)
        return Atoms(found.losses, found.masses * error, found.infinite * error)


def truncated_law(
    *, event: TruncatedPoissonSampled, adjacency: Adjacency, direction: int
) -> TruncatedLaw:
    """The loss of `event` in one direction; see `dominating_pairs` for which.

    Source: arXiv 2508.15089.

    >>> from dpacc_accounting import Gaussian
    >>> cut = TruncatedPoissonSampled(probability=0.5, largest_batch=1, dataset_size=2,
    ...                               event=Gaussian(noise_multiplier=2.0))
    >>> where = Adjacency.ADD_OR_REMOVE
    >>> truncated_law(event=cut, adjacency=where, direction=0).mixed.weights
    (0.5, 0.5)
    """
    cases = truncation_cases(event=event)
    pairs = [dominating_pairs(release=case, adjacency=adjacency)[direction] for _, case in cases]
    branches = tuple(Branch((pair,), (1,)) for pair in pairs)
    return TruncatedLaw(MixedLaw(tuple(chance for chance, _ in cases), branches))


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
