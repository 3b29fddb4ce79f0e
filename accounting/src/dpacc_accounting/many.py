"""Price many events at once: equal ones share the work, different ones an array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dpacc_accounting.composition import Release, releases
from dpacc_accounting.events import Event
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing import epsilon

# As many different events as this are each priced between two certified bounds.
_FEW = 100
# Of more, the dearest are: nothing that a maximum shows is only an upper bound.
_DEAREST = 16


def epsilons(
    *,
    events: Sequence[Event],
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> list[Guarantee]:
    """`epsilon` of each of `events`, at the same δ.

    Equal events are priced once. Where more than a hundred different ones are Poisson-sampled
    Gaussians under add-or-remove adjacency, all but the dearest sixteen get an upper bound on a
    coarser grid, typically 0.5% above what `epsilon` returns; they state no lower bound, so their
    slack is their ε.

    >>> from dpacc_accounting import Gaussian
    >>> one, two = Gaussian(noise_multiplier=1.0), Gaussian(noise_multiplier=2.0)
    >>> [round(g.epsilon, 3) for g in epsilons(events=[one, two, one], delta=1e-5)]
    [4.377, 1.993, 4.377]
    """
    different = dict.fromkeys(events)
    found: dict[Event, Guarantee] = {}
    if len(different) > _FEW and adjacency is Adjacency.ADD_OR_REMOVE:
        found = _bounded(different, delta, unit)
    for event in different:
        if event not in found:
            found[event] = epsilon(event=event, delta=delta, adjacency=adjacency, unit=unit)
    return [found[event] for event in events]


def _bounded(events: Iterable[Event], delta: float, unit: str) -> dict[Event, Guarantee]:
    """Upper bounds on all events that a batch can hold, but for the dearest."""
    from dpacc_accounting.batched import batched_epsilons

    laws = {event: _law(event) for event in events}
    suited = {event: law for event, law in laws.items() if law}
    if not suited:
        return {}
    bounds = batched_epsilons(laws=[*suited.values()], delta=delta)
    ranked = sorted(zip(bounds, suited, strict=True), key=lambda pair: pair[0], reverse=True)
    return {
        event: Guarantee(
            epsilon=float(bound),
            delta=delta,
            adjacency=Adjacency.ADD_OR_REMOVE,
            unit=unit,
            method="pld",
            slack=float(bound),
        )
        for bound, event in ranked[_DEAREST:]
        if bound < float("inf")
    }


def _law(event: Event) -> Mapping[Release, int]:
    """The event's sampled Gaussians; nothing where it holds anything else, or no noise."""
    try:
        law = releases(event=event)
    except ValueError:
        return {}
    if all(r.probability == 1 or not r.noise_multiplier > 0.05 for r in law):
        return {}
    return law
