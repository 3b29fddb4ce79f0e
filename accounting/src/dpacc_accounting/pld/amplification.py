"""What sampling hides: the same releases, seen by someone who learns every sample."""

from __future__ import annotations

from dataclasses import replace

from dpacc_accounting.events.arguments import an_event
from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    AdaptivelyClipped,
    Composed,
    CyclicPoissonSampled,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    SeparatedParticipation,
    Shuffled,
    Skellam,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.events.finite_mechanisms import TruncatedDiscreteGaussian
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.truncation import truncation_cases

_SUMS = (
    Gaussian,
    AdaptivelyClipped,
    MixtureOfGaussians,
    Laplace,
    DiscreteLaplace,
    DiscreteGaussian,
    TruncatedDiscreteGaussian,
    Skellam,
    PoissonSampled,
    CyclicPoissonSampled,
    RandomlyAllocated,
    SeparatedParticipation,
    Repeated,
    Composed,
    Mixture,
)


def coin_is_hidden(*, event: Event, adjacency: Adjacency) -> bool:
    """Whether a Poisson sample of `event` amplifies by the unit's coin, as if no one saw it.

    That takes the neighbour's output to be the output of a sample without the unit. Under zero-out
    it is where `event` sums contributions, to which a null unit adds zero; what else a mechanism
    puts out when it is given a null unit is not known. Under replace-one it never is.

    >>> coin_is_hidden(event=Gaussian(noise_multiplier=1.0), adjacency=Adjacency.ZERO_OUT)
    True
    """
    if adjacency is Adjacency.ZERO_OUT:
        return all(isinstance(part, _SUMS) for part in nested_events(event))
    return adjacency is Adjacency.ADD_OR_REMOVE


def without_amplification(*, event: Event) -> Event:
    """`event` as whoever learns every sample sees it: each release holds the unit for certain.

    Its ε is an upper bound for any way of sampling at all, Poisson or not. A mixture counts as all
    of its events together, of which it runs one. In a batch that was cut, the unit stands where
    another would, and moves the sum by 2C: half the noise. Of random amounts the largest counts.

    Args:
        event: what is released about the same data.

    Source: joint convexity of hockey-stick divergences over the samples, as in Balle, Barthe &
    Gaboardi 2018 (arXiv 1807.01647).

    >>> from dpacc_accounting.events.event import Gaussian
    >>> step = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))
    >>> without_amplification(event=Repeated(event=step, times=3))
    Repeated(event=Gaussian(noise_multiplier=1.0), times=3)
    """
    an_event(event)
    match event:
        case PoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
            return without_amplification(event=inner)
        case TruncatedPoissonSampled() if event.may_be_full and event.probability > 0:
            return _cut(event)
        case TruncatedPoissonSampled(event=inner):
            return without_amplification(event=inner)
        case Shuffled(event=inner) | RandomlyAllocated(event=inner, participations=1):
            return without_amplification(event=inner)
        case CyclicPoissonSampled(event=inner):
            return Repeated(event=without_amplification(event=inner), times=event.turns)
        case RandomlyAllocated(event=inner, participations=most):
            return Repeated(event=without_amplification(event=inner), times=most)
        case MixtureOfGaussians(noise_multiplier=sigma):
            largest = max(event.amounts, default=0.0)
            return Gaussian(noise_multiplier=sigma / largest) if largest else Composed(events=())
        case Selected(event=inner):
            return replace(event, event=without_amplification(event=inner))
        case Repeated(event=inner, times=times):
            return Repeated(event=without_amplification(event=inner), times=times)
        case Composed(events=parts) | Mixture(events=parts):
            return Composed(events=tuple(without_amplification(event=part) for part in parts))
    return event


def _cut(event: TruncatedPoissonSampled) -> Event:
    """Whether the batch was full is known too."""
    cases = truncation_cases(event=event)
    noises = tuple(Gaussian(noise_multiplier=case.noise_multiplier) for _, case in cases)
    return Mixture(weights=tuple(chance for chance, _ in cases), events=noises)
