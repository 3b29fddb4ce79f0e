"""Events that certainly cost no more than others: what a lower bound may be read from."""

from __future__ import annotations

import math
from dataclasses import replace

from dpacc_accounting.events.event import (
    ZCDP,
    Composed,
    CyclicPoissonSampled,
    Event,
    Gaussian,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
)
from dpacc_accounting.events.flattening import single_noise
from dpacc_accounting.guarantee import Adjacency


def least_event(*, event: Event, adjacency: Adjacency) -> Event:
    """`event`, where its upper bound is of something else, replaced by what costs no more.

    The steps of an allocation are summed, which only hides; a mechanism known by its ρ may be a
    Gaussian. Compositions, samples and mixtures keep the order of what they hold.

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
        case Repeated(event=inner) | PoissonSampled(event=inner):
            return replace(event, event=least_event(event=inner, adjacency=adjacency))
        case CyclicPoissonSampled(event=inner) | SampledWithoutReplacement(event=inner):
            return replace(event, event=least_event(event=inner, adjacency=adjacency))
        case Composed(events=parts) | Mixture(events=parts):
            least = tuple(least_event(event=part, adjacency=adjacency) for part in parts)
            return replace(event, events=least)
    return event
