"""Price many events at once: equal ones share the work."""

from __future__ import annotations

from collections.abc import Sequence

from dpacc_accounting.events import Event
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing import epsilon


def epsilons(
    *,
    events: Sequence[Event],
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> list[Guarantee]:
    """`epsilon` of each of `events`, at the same δ.

    >>> from dpacc_accounting import Gaussian
    >>> one, two = Gaussian(noise_multiplier=1.0), Gaussian(noise_multiplier=2.0)
    >>> [round(g.epsilon, 3) for g in epsilons(events=[one, two, one], delta=1e-5)]
    [4.377, 1.993, 4.377]
    """
    found = {
        event: epsilon(event=event, delta=delta, adjacency=adjacency, unit=unit)
        for event in dict.fromkeys(events)
    }
    return [found[event] for event in events]
