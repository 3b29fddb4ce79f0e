"""Several examples at once: what is promised to a group, or to a user who gave more than one."""

from __future__ import annotations

import math

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.events.arguments import an_event, require_delta, require_unit, whole
from dpacc_accounting.events.event import CyclicPoissonSampled, Event
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.events.flattening import Release, releases
from dpacc_accounting.gaussian import gaussian_epsilon
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.certified_bounds import joint_mu
from dpacc_accounting.pricing.price import delta as price_delta
from dpacc_accounting.pricing.price import epsilon as price_epsilon

# Beyond this size only the general rules are tried.
_LARGEST_GROUP = 10_000


def group_epsilon(
    *,
    event: Event,
    size: int,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> Guarantee:
    """The smallest certified ε at δ for groups of up to k = `size` units.

    The least of: kμ-GDP of the releases as if unsampled (exact for unsampled Gaussians); under
    add-or-remove or zero-out adjacency, mixtures of Gaussians whose shifts are Binomial(k, q); and,
    for any event, ``(k·ε, δ·(e^{kε} − 1)/(e^ε − 1))`` from its own (ε, δ).

    Args:
        event: what is released about the same data, each unit sampled on its own.
        size: k >= 1. Add-or-remove: k units are added, or k removed. Otherwise k are replaced.
        delta: δ in (0, 1), for the whole group.
        adjacency: which datasets are neighbours when k = 1.
        unit: whose data one unit is; the result's unit names the group.

    Raises:
        ValueError: an argument is out of range, or the event cannot be priced.

    Source: Ganesh 2024 (arXiv 2401.10294); Vadhan 2017, The Complexity of Differential Privacy,
    lemma 2.2; Dong, Roth & Su 2019 (arXiv 1905.02383), theorem 2.14.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> pair = group_epsilon(event=Gaussian(noise_multiplier=2.0), size=2, delta=1e-5)
    >>> print(pair)
    (ε = 4.378, δ = 1e-05)-DP, add-or-remove adjacency, unit: group of up to 2 examples, PLD
    """
    event, delta, unit = an_event(event), require_delta(delta), require_unit(unit)
    size = whole("size", size)
    if size == 1:
        return price_epsilon(event=event, delta=delta, adjacency=adjacency, unit=unit)
    low, high = _group_interval(event, size, delta, Adjacency(adjacency))
    return Guarantee(
        epsilon=high,
        delta=delta,
        adjacency=Adjacency(adjacency),
        unit=f"group of up to {size} {unit}s",
        method="pld",
        slack=high - low if math.isfinite(high) else math.inf,
    )


def user_epsilon(
    *,
    event: Event,
    cap: int,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> Guarantee:
    """The smallest certified ε at δ for users who gave at most `cap` units each.

    The cap must be enforced before training, by dropping what exceeds it. Each unit is still
    sampled and clipped on its own; to sample and clip whole users instead, make the user the unit
    of the event. Otherwise as `group_epsilon`.

    Raises:
        ValueError: as in `group_epsilon`.

    Source: as for `group_epsilon`; Charles et al. 2024 (arXiv 2407.07737) compares the two ways.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> user_epsilon(event=Gaussian(noise_multiplier=2.0), cap=2, delta=1e-5).unit
    'user with up to 2 examples'
    """
    cap = whole("cap", cap)
    found = group_epsilon(event=event, size=cap, delta=delta, adjacency=adjacency, unit=unit)
    many = unit if cap == 1 else f"{unit}s"
    return Guarantee(
        epsilon=found.epsilon,
        delta=found.delta,
        adjacency=found.adjacency,
        unit=f"user with up to {cap} {many}",
        method=found.method,
        slack=found.slack,
    )


def _group_interval(
    event: Event, size: int, delta: float, adjacency: Adjacency
) -> tuple[float, float]:
    try:
        counts = releases(event=event)
    except ValueError:
        counts = {}
    if not counts or any(release.noise_multiplier == 0 for release in counts):
        return 0.0, _by_repetition(event, size, delta, adjacency)
    in_turns = any(isinstance(part, CyclicPoissonSampled) for part in nested_events(event))
    whole = gaussian_epsilon(mu=size * joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    if all(release.probability == 1 for release in counts):
        return (0.0 if in_turns else whole), whole
    if adjacency is Adjacency.REPLACE_ONE or size > _LARGEST_GROUP or in_turns:
        return 0.0, min(whole, _by_repetition(event, size, delta, adjacency))
    low, high = _by_mixture(counts, size, delta)
    return min(low, whole), min(high, whole)


def _by_mixture(counts: dict[Release, int], size: int, delta: float) -> tuple[float, float]:
    """Bounds from both dominating pairs of Poisson-sampled Gaussians and a group.

    Values of B may have been rounded up, so that nothing but 0 is certified from below.
    """
    from dpacc_accounting.pld.composed_loss import ComposedLoss
    from dpacc_accounting.pld.group_pairs import group_pairs

    pairs = [
        group_pairs(probability=r.probability, noise_multiplier=r.noise_multiplier, size=size)
        for r in counts
    ]
    times = tuple(counts.values())
    losses = [ComposedLoss(tuple(choice), times) for choice in zip(*pairs, strict=True)]
    return 0.0, max(loss.epsilon_above(delta=delta)[0] for loss in losses)


def _by_repetition(event: Event, size: int, delta: float, adjacency: Adjacency) -> float:
    """k·ε for the least ε found with δ(ε)·Σ_{i<k} e^{iε} <= δ."""

    def shortfall(epsilon: float) -> float:
        one = price_delta(event=event, epsilon=epsilon, adjacency=adjacency).delta
        return math.log(delta) - math.log(max(one, 5e-324)) - _log_geometric(epsilon, size)

    low = price_epsilon(event=event, delta=delta / size, adjacency=adjacency).epsilon
    if low == 0 and shortfall(0.0) >= 0:
        return 0.0
    if not math.isfinite(low):
        return math.inf
    high = max(low, 1e-6)
    while shortfall(high) < 0:
        low, high = high, 1.5 * high
        if high > 1e6:
            return math.inf
    bracket = last_negative(function=shortfall, low=low, high=high, tolerance=1e-4)
    return size * bracket[1] if shortfall(low) < 0 else size * low


def _log_geometric(epsilon: float, size: int) -> float:
    """`ln Σ_{i<k} e^{iε}`."""
    if epsilon == 0:
        return math.log(size)
    grown = math.log(-math.expm1(-size * epsilon)) - math.log(-math.expm1(-epsilon))
    return (size - 1) * epsilon + grown
