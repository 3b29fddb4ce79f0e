"""Events that certainly cost no more than others: what a lower bound may be read from."""

from __future__ import annotations

import math
from dataclasses import replace

from dpacc_accounting.events.event import (
    ZCDP,
    ApproximateDP,
    Composed,
    CyclicPoissonSampled,
    Event,
    ExponentialMechanism,
    Gaussian,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
)
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.events.flattening import pieces, single_noise
from dpacc_accounting.guarantee import Adjacency


def least_event(*, event: Event, adjacency: Adjacency) -> Event:
    """`event`, where its upper bound is of something else, replaced by what costs no more.

    The steps of an allocation are summed, which only hides; a mechanism known by its ρ may be a
    Gaussian; a choice of bounded range may be one between two candidates whose lead is turned
    round, which is randomised response at half the range. Compositions, samples and mixtures keep
    the order of what they hold.

    >>> steps = RandomlyAllocated(steps=9, participations=3, event=Gaussian(noise_multiplier=1.0))
    >>> round(least_event(event=steps, adjacency=Adjacency.ADD_OR_REMOVE).noise_multiplier, 6)
    1.0
    """
    match event:
        case RandomlyAllocated(steps=steps, participations=often) if 1 < often < steps:
            spread = single_noise(event=event) * math.sqrt(steps) / often
            return Gaussian(noise_multiplier=spread * (1 + 1e-15))
        case ZCDP(rho=rho):
            reach = 2 if adjacency is Adjacency.REPLACE_ONE else 1
            if rho < 1e-200:
                return Composed(events=())
            return Gaussian(noise_multiplier=reach / math.sqrt(2 * rho) * (1 + 1e-15))
        case ExponentialMechanism(epsilon=width):
            return ApproximateDP(epsilon=width / 2, delta=0.0)
        case Repeated(event=inner) | PoissonSampled(event=inner):
            return replace(event, event=least_event(event=inner, adjacency=adjacency))
        case CyclicPoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
            return replace(event, event=least_event(event=inner, adjacency=adjacency))
        case Composed(events=parts) | Mixture(events=parts):
            least = tuple(least_event(event=part, adjacency=adjacency) for part in parts)
            return replace(event, events=least)
    return event


def needs_least_event(*, event: Event) -> bool:
    """Whether an upper bound on `event` is of something that may cost more.

    One choice of bounded range is priced exactly: at every ε some choice has that δ. No choice has
    all of them, which is what several together are priced by.

    >>> once = ExponentialMechanism(epsilon=1.0)
    >>> needs_least_event(event=once), needs_least_event(event=Repeated(event=once, times=2))
    (False, True)
    """
    parts = [*nested_events(event)]
    if any(isinstance(part, ZCDP | RandomlyAllocated) for part in parts):
        return True
    return several_choices(event=event)


def several_choices(*, event: Event) -> bool:
    """Whether a choice of bounded range stands beside something else, itself or another.

    >>> once = ExponentialMechanism(epsilon=1.0)
    >>> several_choices(event=PoissonSampled(probability=0.5, event=once))
    False
    """
    if not any(isinstance(part, ExponentialMechanism) for part in nested_events(event)):
        return False
    gaussians, others = pieces(event=event)
    if gaussians or [*others.values()] != [1]:
        return True
    (only,) = others
    match only:
        case ExponentialMechanism():
            return False
        case PoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
            return several_choices(event=inner)
    return True
