"""Price many events at once: equal ones share the work, different ones an array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dpacc_accounting.events.event import Event
from dpacc_accounting.events.flattening import Release, releases
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.price import epsilon

# As many different events as this are each priced between two certified bounds.
_FEW = 100
# Of more, the dearest are, until no other can be the maximum; but no more than these.
_DEAREST = 200


def epsilons(
    *,
    events: Sequence[Event],
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> list[Guarantee]:
    """`epsilon` of each of `events`, at the same δ.

    Equal events are priced once. Where more than a hundred different ones are Poisson-sampled
    Gaussians under add-or-remove adjacency, all but the dearest get an upper bound on a coarser
    grid, typically 0.5% above what `epsilon` returns; they state no lower bound, so their slack is
    their ε.

    >>> from dpacc_accounting import Gaussian
    >>> one, two = Gaussian(noise_multiplier=1.0), Gaussian(noise_multiplier=2.0)
    >>> [round(g.epsilon, 3) for g in epsilons(events=[one, two, one], delta=1e-5)]
    [4.377, 1.993, 4.377]
    """
    different = dict.fromkeys(events)
    coarse: dict[Event, Guarantee] = {}
    if len(different) > _FEW and adjacency is Adjacency.ADD_OR_REMOVE:
        coarse = _bounded(different, delta, unit)

    def exactly(event: Event) -> Guarantee:
        return epsilon(event=event, delta=delta, adjacency=adjacency, unit=unit)

    found = coarse | {event: exactly(event) for event in different if event not in coarse}
    largest = max((found[e].epsilon for e in different if e not in coarse), default=0.0)
    dearest = sorted(coarse, key=lambda event: coarse[event].epsilon, reverse=True)[:_DEAREST]
    for event in dearest:
        if coarse[event].epsilon < largest:
            break
        found[event] = exactly(event)
        largest = max(largest, found[event].epsilon)
    return [found[event] for event in events]


def _bounded(events: Iterable[Event], delta: float, unit: str) -> dict[Event, Guarantee]:
    """Upper bounds on those events that a batch can hold."""
    from dpacc_accounting.federation.batched_bounds import batched_epsilons

    laws = {event: _law(event) for event in events}
    suited = {event: law for event, law in laws.items() if law}
    bounds = batched_epsilons(laws=[*suited.values()], delta=delta) if suited else ()
    return {
        event: Guarantee(
            epsilon=float(bound),
            delta=delta,
            adjacency=Adjacency.ADD_OR_REMOVE,
            unit=unit,
            method="pld",
            slack=float(bound),
        )
        for event, bound in zip(suited, bounds, strict=True)
        if bound < float("inf")
    }


def _law(event: Event) -> Mapping[Release, int]:
    """The event's sampled Gaussians; nothing where it holds anything else, or no noise."""
    try:
        law = releases(event=event)
    except ValueError:
        return {}
    if not all(isinstance(kind, Release) and kind.noise_multiplier > 0.05 for kind in law):
        return {}
    return {} if all(kind.probability == 1 for kind in law) else law
