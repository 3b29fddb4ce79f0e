"""The privacy losses that an event amounts to, for every choice of who is P and who is Q."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    ZCDP,
    ApproximateDP,
    Composed,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PermuteAndFlip,
    PoissonSampled,
    RandomizedResponse,
    RandomlyAllocated,
    SampledWithoutReplacement,
    Selected,
    Skellam,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.events.finite_mechanisms import TruncatedDiscreteGaussian
from dpacc_accounting.events.flattening import pieces, single_noise
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.amplification import coin_is_hidden
from dpacc_accounting.pld.dominating_pairs import Pair, dominating_pairs
from dpacc_accounting.pld.finite_losses import LARGEST_TABLE, FiniteLoss, require_replacing
from dpacc_accounting.pld.fixed_batches import FixedBatchLoss
from dpacc_accounting.pld.group_pairs import mixture_pairs
from dpacc_accounting.pld.mechanism_losses import MechanismLoss
from dpacc_accounting.pld.mixtures import Branch, MixedLoss, SampledLoss
from dpacc_accounting.pld.privacy_losses import PrivacyLoss
from dpacc_accounting.pld.random_allocation import LARGEST_SHIFT as LARGEST_ALLOCATED_SHIFT
from dpacc_accounting.pld.random_allocation import AllocatedLoss
from dpacc_accounting.pld.truncation import require_room, truncated_loss, truncation_cases

LARGEST_SHIFT = 50.0
"""The largest 1/σ for which a grid resolves what sampling hides."""
LARGEST_NOISE = 1e50
"""The largest σ whose losses are not all rounded to 0."""
# Larger losses of one release leave the range of a double; of noisy integers, shift over noise.
_LARGEST_LOSS = 600.0
_LARGEST_INTEGER_SHIFT = 25.0
_SMALLEST_LOSS = 1e-12
# More integers are not tabulated.
_LARGEST_SIGMA = 1e100
# More releases drown in rounding, or in the patience of who asks.
_MOST_RELEASES = 10**10
_MOST_ALLOCATED = 10**5


def directed_branches(*, event: Event, adjacency: Adjacency) -> list[Branch]:
    """`event`, flattened, for every choice of who is P and who is Q.

    The choice is the same in every release, and in every branch of a mixture.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> len(directed_branches(event=Gaussian(noise_multiplier=1.0),
    ...                       adjacency=Adjacency.ADD_OR_REMOVE))
    2
    """
    directions = 1 if adjacency is Adjacency.REPLACE_ONE else 2
    return [_branch(event, adjacency, direction) for direction in range(directions)]


def _branch(event: Event, adjacency: Adjacency, direction: int) -> Branch:
    gaussians, others = pieces(event=event)
    laws: Counter[Pair | PrivacyLoss] = Counter()
    for release, n in gaussians.items():
        laws[dominating_pairs(release=release, adjacency=adjacency)[direction]] += n
    for other, n in others.items():
        if _participation(other) > 0:
            laws[_law(other, adjacency, direction)] += n
    return Branch(tuple(laws), tuple(laws.values()))


def _law(event: Event, adjacency: Adjacency, direction: int) -> Pair | PrivacyLoss:
    match event:
        case MixtureOfGaussians() if adjacency is Adjacency.REPLACE_ONE:
            return _mixed(revealed(event=event), adjacency, direction)
        case MixtureOfGaussians():
            return mixture_pairs(event=event)[direction]
        case Mixture():
            return _mixed(event, adjacency, direction)
        case PoissonSampled(probability=q, event=inner):
            return _sampled(q, inner, adjacency, direction)
        case SampledWithoutReplacement():
            return _fixed_batch(event, adjacency, direction)
        case TruncatedPoissonSampled():
            return truncated_loss(event=event, adjacency=adjacency, direction=direction)
        case RandomlyAllocated():
            return _allocated(event, adjacency, direction)
        case Selected():
            raise ValueError(
                "a selection (Selected) beside or inside other events has no privacy loss "
                "distribution; pass method='rdp', or price it on its own"
            )
        case Laplace() | DiscreteGaussian() | Skellam() | ExponentialMechanism():
            return MechanismLoss(event, adjacency)
        case ApproximateDP() | RandomizedResponse() | DiscreteLaplace() | PermuteAndFlip():
            return FiniteLoss(event, adjacency)
        case TruncatedDiscreteGaussian():
            return FiniteLoss(event, adjacency)
        case ZCDP():
            raise ValueError(
                "zCDP (ZCDP) has no privacy loss distribution; pass method='rdp', and take it out "
                "of samples: without_amplification(event=...)"
            )
    raise ValueError(f"{event} cannot be priced")


def _sampled(q: float, event: Event, adjacency: Adjacency, direction: int) -> PrivacyLoss:
    """A Poisson sample; where the unit's coin is not hidden, as if it were seen: not tight."""
    branch = _branch(event, adjacency, direction)
    if not coin_is_hidden(event=event, adjacency=adjacency):
        return MixedLoss((q, 1 - q), (branch, Branch((), ())))
    return SampledLoss(q, branch, adding=direction == 1)


def _fixed_batch(
    event: SampledWithoutReplacement, adjacency: Adjacency, direction: int
) -> PrivacyLoss:
    """A batch of fixed size; under zero-out, as if it were seen whether the unit is in it.

    A null unit keeps its place, so that the same batch is drawn from both datasets. Given who is in
    it, outputs differ by one contribution where the unit is, and not at all elsewhere.
    """
    require_adjacency(event=event, adjacency=adjacency)
    share = event.sample_size / event.dataset_size
    branch = _branch(event.event, adjacency, direction)
    if share == 1:
        return MixedLoss((1.0,), (branch,))
    if adjacency is Adjacency.ZERO_OUT:
        return MixedLoss((share, 1 - share), (branch, Branch((), ())))
    return FixedBatchLoss(share, branch)


def _allocated(event: RandomlyAllocated, adjacency: Adjacency, direction: int) -> PrivacyLoss:
    require_adjacency(event=event, adjacency=adjacency)
    return AllocatedLoss(event.steps, 1 / single_noise(event=event), adding=direction == 1)


def _mixed(event: Mixture, adjacency: Adjacency, direction: int) -> PrivacyLoss:
    chances = _chances(event)
    branches = tuple(_branch(part, adjacency, direction) for _, part in chances)
    return MixedLoss(tuple(chance for chance, _ in chances), branches)


def revealed(*, event: MixtureOfGaussians) -> Mixture:
    """`event`, seen by someone who learns by which amount the unit moves the sum.

    >>> revealed(event=MixtureOfGaussians(noise_multiplier=2, weights=(0.5, 0.5),
    ...                                   sensitivities=(0, 1))).weights
    (0.5, 0.5)
    """
    amounts = event.amounts
    nothing = max(1 - math.fsum(amounts.values()), 0.0)
    noises = [Gaussian(noise_multiplier=event.noise_multiplier / size) for size in amounts]
    return Mixture(weights=(*amounts.values(), nothing), events=(*noises, Composed(events=())))


def _chances(event: Mixture) -> list[tuple[float, Event]]:
    """What may really run, and how likely."""
    total = math.fsum(event.weights)
    return [(w / total, part) for w, part in zip(event.weights, event.events, strict=True) if w > 0]


def participation_of(*, event: Event) -> float:
    """An upper bound on the chance that `event` runs anything at all about a unit.

    >>> from dpacc_accounting.events.event import Composed, Gaussian
    >>> parts = (Gaussian(noise_multiplier=1.0), Composed(events=()))
    >>> rare = Mixture(weights=(0.25, 0.75), events=parts)
    >>> participation_of(event=rare)
    0.25
    """
    gaussians, others = pieces(event=event)
    chances = [(release.probability, n) for release, n in gaussians.items()]
    chances += [(_participation(other), n) for other, n in others.items()]
    if any(chance == 1 for chance, _ in chances):
        return 1.0
    if [n for _, n in chances] == [1]:
        return chances[0][0]
    some = -math.expm1(math.fsum(n * math.log1p(-chance) for chance, n in chances))
    return min(some * (1 + 1e-14), 1.0)


def _participation(event: Event) -> float:
    if isinstance(event, PoissonSampled):
        return event.probability * participation_of(event=event.event)
    if isinstance(event, SampledWithoutReplacement):
        return event.sample_size / event.dataset_size * participation_of(event=event.event)
    if isinstance(event, MixtureOfGaussians):
        return min(math.fsum(event.amounts.values()), 1.0)
    if isinstance(event, TruncatedPoissonSampled):
        cases = truncation_cases(event=event)
        return min(math.fsum(chance * case.probability for chance, case in cases), 1.0)
    if not isinstance(event, Mixture):
        return 1.0
    return min(math.fsum(w * participation_of(event=part) for w, part in _chances(event)), 1.0)


def require_adjacency(*, event: Event, adjacency: Adjacency) -> None:
    """Refuse a way of sampling that is not priced under `adjacency`.

    Raises:
        ValueError: with the remedy.
    """
    replaced = adjacency is Adjacency.REPLACE_ONE
    for part in nested_events(event):
        if isinstance(part, SampledWithoutReplacement) and adjacency is Adjacency.ADD_OR_REMOVE:
            raise ValueError(
                "SampledWithoutReplacement is priced where neighbours have the same size; pass "
                "adjacency=Adjacency.REPLACE_ONE, or Adjacency.ZERO_OUT"
            )
        if isinstance(part, TruncatedPoissonSampled):
            require_room(event=part, adjacency=adjacency)
        if isinstance(part, RandomizedResponse):
            require_replacing(adjacency)
        if isinstance(part, RandomlyAllocated) and part.participations < part.steps and replaced:
            raise ValueError(
                "RandomlyAllocated is priced under add-or-remove adjacency, where a dominating "
                "pair is known; pass adjacency=Adjacency.ADD_OR_REMOVE, or price "
                "without_amplification(event=...)"
            )


def resolved(*, event: Event) -> bool:
    """Whether a grid can hold every loss in `event`, and every sum of them."""
    gaussians, others = pieces(event=event)
    return (
        all(1 / largest <= sigma <= LARGEST_NOISE for sigma, largest in _noises(event))
        and sum((*gaussians.values(), *others.values())) <= _MOST_RELEASES
        and all(_within_range(part) for part in others)
    )


def _within_range(event: Event) -> bool:
    match event:
        case Laplace(noise_multiplier=scale):
            return 1 / _LARGEST_LOSS <= scale <= 1 / _SMALLEST_LOSS
        case ExponentialMechanism(epsilon=width) | PermuteAndFlip(epsilon=width):
            return _SMALLEST_LOSS <= width <= _LARGEST_LOSS
        case ApproximateDP(epsilon=width, delta=lost):
            return lost < 1 and _SMALLEST_LOSS <= width <= _LARGEST_LOSS
        case RandomizedResponse(noise=noise, options=options):
            return _SMALLEST_LOSS <= math.log1p(options * (1 - noise) / noise) <= _LARGEST_LOSS
        case DiscreteLaplace(decay=decay, sensitivity=most):
            within = _SMALLEST_LOSS <= decay * most <= _LARGEST_LOSS
            return within and most <= LARGEST_TABLE
        case DiscreteGaussian(sigma=sigma, sensitivity=most):
            return most <= _LARGEST_INTEGER_SHIFT * sigma and sigma < _LARGEST_SIGMA
        case TruncatedDiscreteGaussian(sigma=sigma, sensitivity=most, bound=bound):
            within = most <= _LARGEST_INTEGER_SHIFT * sigma and sigma < _LARGEST_SIGMA
            # Else two neighbours may share one outcome, or none: there is nothing for a grid.
            return within and most < bound
        case Skellam(variance=variance, sensitivity=most):
            sigma = math.sqrt(variance)
            return most <= _LARGEST_INTEGER_SHIFT * sigma and sigma < _LARGEST_SIGMA
        case RandomlyAllocated(steps=steps):
            return steps <= _MOST_ALLOCATED
        case Mixture():
            return all(resolved(event=part) for _, part in _chances(event))
        case PoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
            return resolved(event=inner)
    return True


def _noises(event: Event) -> Iterator[tuple[float, float]]:
    """Each Gaussian's σ, and the largest 1/σ that is resolved there."""
    gaussians, others = pieces(event=event)
    yield from ((release.noise_multiplier, LARGEST_SHIFT) for release in gaussians)
    for other in others:
        match other:
            case MixtureOfGaussians(noise_multiplier=sigma):
                yield from ((sigma / size, LARGEST_SHIFT) for size in other.amounts)
            case RandomlyAllocated():
                yield single_noise(event=other), LARGEST_ALLOCATED_SHIFT
            case TruncatedPoissonSampled():
                yield from (
                    (c.noise_multiplier, LARGEST_SHIFT) for _, c in truncation_cases(event=other)
                )
            case PoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
                yield from _noises(inner)
            case Mixture():
                for _, part in _chances(other):
                    yield from _noises(part)
