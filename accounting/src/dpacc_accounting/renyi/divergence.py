"""Rényi divergence of any event that has a bound on it: looser than PLD, and it composes.

Shares no numerics with `pld`. A mixture is bounded with its coin revealed:
`e^((α − 1)·ε(α)) <= Σ w_i·e^((α − 1)·ε_i(α))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    Laplace,
    Mixture,
    Selected,
    Skellam,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.events.finite_mechanisms import (
    ZCDP,
    ApproximateDP,
    DiscreteLaplace,
    FiniteMechanism,
    PermuteAndFlip,
    RandomizedResponse,
    TruncatedDiscreteGaussian,
)
from dpacc_accounting.events.flattening import Release, pieces
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.pld.finite_losses import LARGEST_TABLE, outcomes
from dpacc_accounting.pld.truncation import require_room, truncation_cases
from dpacc_accounting.renyi.random_amounts import random_amount_divergence
from dpacc_accounting.renyi.sampled_gaussian import (
    delta_of_divergences,
    epsilon_of_divergences,
    renyi_divergence,
)
from dpacc_accounting.renyi.selected_runs import selected_divergences


def event_rdp_epsilon(*, event: Event, adjacency: Adjacency, delta: float) -> float:
    """An upper bound on ε at `delta`, the best over the Rényi orders.

    Raises:
        ValueError: no bound is known for a part of `event`.

    >>> from dpacc_accounting import Gaussian
    >>> where = Adjacency.ADD_OR_REMOVE
    >>> round(event_rdp_epsilon(event=Gaussian(noise_multiplier=1.0), adjacency=where,
    ...                         delta=1e-5), 3)
    4.728
    """
    return epsilon_of_divergences(_divergences_of(event, adjacency), delta=delta)


def event_rdp_delta(*, event: Event, adjacency: Adjacency, epsilon: float) -> float:
    """An upper bound on δ at `epsilon`, the best over the Rényi orders.

    Raises:
        ValueError: no bound is known for a part of `event`.

    >>> from dpacc_accounting import Gaussian
    >>> where = Adjacency.ADD_OR_REMOVE
    >>> event_rdp_delta(event=Gaussian(noise_multiplier=1.0), adjacency=where, epsilon=4.73) <= 1e-5
    True
    """
    return delta_of_divergences(_divergences_of(event, adjacency), epsilon=epsilon)


def _divergences_of(event: Event, adjacency: Adjacency) -> Callable[[Array], Array]:
    return lambda orders: event_divergences(event=event, adjacency=adjacency, orders=orders)


def event_divergences(*, event: Event, adjacency: Adjacency, orders: Array) -> Array:
    """ε(α) of `event` at each order α > 1, the larger of both directions, from above.

    >>> from dpacc_accounting import Gaussian, Repeated
    >>> twice = Repeated(event=Gaussian(noise_multiplier=2.0), times=2)
    >>> event_divergences(event=twice, adjacency=Adjacency.ADD_OR_REMOVE,
    ...                   orders=np.array([3.0])).round(6).tolist()
    [0.75]
    """
    gaussians, others = pieces(event=event)
    total = np.zeros_like(orders)
    for release, n in gaussians.items():
        total += n * _sampled_gaussian(release, adjacency, orders)
    for other, n in others.items():
        total += n * _other(other, adjacency, orders)
    return total


def largest_loss(*, event: Event, adjacency: Adjacency) -> float:
    """ε(∞), which no privacy loss exceeds, from above; infinite where none is known.

    >>> twice = Laplace(noise_multiplier=4.0)
    >>> largest_loss(event=twice, adjacency=Adjacency.REPLACE_ONE)
    0.5
    """
    gaussians, others = pieces(event=event)
    if gaussians:
        return math.inf
    return math.fsum(n * _largest(other, adjacency) for other, n in others.items())


def _largest(event: Event, adjacency: Adjacency) -> float:
    match event:
        case Laplace(noise_multiplier=scale):
            return (2 if adjacency is Adjacency.REPLACE_ONE else 1) / scale
        case ExponentialMechanism(epsilon=width) | PermuteAndFlip(epsilon=width):
            return width
        case RandomizedResponse() | ApproximateDP(delta=0.0):
            losses, _, _ = outcomes(mechanism=event, adjacency=adjacency)
            return float(losses.max()) * (1 + 1e-14)
    return math.inf


def _sampled_gaussian(release: Release, adjacency: Adjacency, orders: Array) -> Array:
    if release.silent:
        return np.full_like(orders, math.inf)
    return np.array(
        [renyi_divergence(release=release, adjacency=adjacency, order=a) for a in orders]
    )


def _other(event: Event, adjacency: Adjacency, orders: Array) -> Array:
    reach = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    match event:
        case TruncatedPoissonSampled():
            require_room(event=event, adjacency=adjacency)
            cases = truncation_cases(event=event)
            parts = [_sampled_gaussian(case, adjacency, orders) for _, case in cases]
            return _revealed([chance for chance, _ in cases], parts, orders)
        case Mixture(weights=weights, events=events):
            parts = [
                event_divergences(event=part, adjacency=adjacency, orders=orders) for part in events
            ]
            return _revealed([w / math.fsum(weights) for w in weights], parts, orders)
        case MixtureOfGaussians():
            return _moved_at_random(event, adjacency, orders)
        case Selected():
            once = partial(_once, event.event, adjacency)
            largest = largest_loss(event=event.event, adjacency=adjacency)
            return selected_divergences(event=event, once=once, largest=largest, orders=orders)
        case Laplace(noise_multiplier=scale):
            return _laplace(reach / scale, orders)
        case DiscreteGaussian(sigma=sigma, sensitivity=most):
            return orders * _half_square(reach * most / sigma)
        case Skellam(variance=variance, sensitivity=most):
            return _skellam(variance, reach * most, orders)
        case RandomizedResponse() | DiscreteLaplace() | PermuteAndFlip():
            return _finite(event, adjacency, orders)
        case ExponentialMechanism(epsilon=width):
            return _bounded_range(width, orders)
        case TruncatedDiscreteGaussian():
            # Some outcomes are possible on one side alone.
            return np.full_like(orders, math.inf)
        case ZCDP(rho=rho, xi=xi):
            return xi + rho * orders
        case ApproximateDP(delta=lost) if lost == 0:
            return _finite(event, adjacency, orders)
    if any(isinstance(part, ZCDP) for part in nested_events(event)):
        raise ValueError(
            f"zCDP (ZCDP) inside {type(event).__name__} has no known price, as sampling does not "
            "amplify it; price without_amplification(event=...)"
        )
    raise ValueError(
        f"no Rényi bound is known here for {type(event).__name__}; use method='pld', the only one "
        "that prices it"
    )


@lru_cache(maxsize=64)
def _once_at(event: Event, adjacency: Adjacency, orders: tuple[float, ...]) -> Array:
    return event_divergences(event=event, adjacency=adjacency, orders=np.array(orders))


def _once(event: Event, adjacency: Adjacency, orders: Array) -> Array:
    """One run's divergences, asked for again and again at the same orders."""
    return _once_at(event, adjacency, tuple(orders.tolist()))


def _revealed(chances: Sequence[float], parts: Sequence[Array], orders: Array) -> Array:
    """A mixture of divergences, its coin revealed."""
    likely = [(math.log(w), part) for w, part in zip(chances, parts, strict=True) if w > 0]
    logs = np.array([log_chance + (orders - 1) * part for log_chance, part in likely])
    return np.asarray(np.maximum(np.logaddexp.reduce(logs, axis=0), 0.0) / (orders - 1))


def _moved_at_random(event: MixtureOfGaussians, adjacency: Adjacency, orders: Array) -> Array:
    """With the amount revealed, and under add-or-remove without, where that is resolved."""
    replaced, amounts = adjacency is Adjacency.REPLACE_ONE, event.amounts
    sigma, reach = event.noise_multiplier, 2 if replaced else 1
    if sigma < 1e-100:
        return np.full_like(orders, math.inf)
    chances = [*amounts.values(), max(1 - math.fsum(amounts.values()), 0.0)]
    parts = [orders * _half_square(reach * size / sigma) for size in (*amounts, 0.0)]
    seen = _revealed(chances, parts, orders)
    if replaced:
        return seen
    hidden = [random_amount_divergence(event=event, order=order) for order in orders]
    return np.minimum(seen, hidden)


def _half_square(shift: float) -> float:
    return shift**2 / 2 if shift < 1e100 else math.inf


def _laplace(shift: float, orders: Array) -> Array:
    """Mironov 2017 (arXiv 1702.07476), proposition 6."""
    up = np.log(orders / (2 * orders - 1)) + (orders - 1) * shift
    down = np.log((orders - 1) / (2 * orders - 1)) - orders * shift
    return np.asarray(np.maximum(np.logaddexp(up, down), 0.0) / (orders - 1))


def _bounded_range(width: float, orders: Array) -> Array:
    """The largest of any choice of range ε; see `ExponentialMechanism`.

    The moments are largest where the loss is t or t − ε. With b = α − 1, over all t in [0, ε]

        e^t = b·(e^ε − e^(−bε))/(α·(1 − e^(−bε))),  moment = e^(bt)·(e^ε − e^(−bε))/(α·(e^ε − 1))

    and never more than αε²/8.
    """
    lesser = orders - 1
    spread = width + np.log(-np.expm1(-orders * width))
    told = np.log(lesser) + spread - np.log(orders) - np.log(-np.expm1(-lesser * width))
    log_rest = spread - np.log(orders) - _log_expm1(width)
    found = told + log_rest / lesser + 1e-15 * (1 + width) * orders / lesser
    return np.asarray(np.minimum(np.minimum(found, width), orders * _half_square(width) / 4))


def _log_expm1(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def _finite(event: FiniteMechanism, adjacency: Adjacency, orders: Array) -> Array:
    """`ln Σ P·e^((α − 1)·loss) / (α − 1)` of a dominating pair."""
    if isinstance(event, DiscreteLaplace) and event.sensitivity > LARGEST_TABLE:
        # Too many losses to list: no more than anything whose largest loss is the same.
        reach = 2 if adjacency is Adjacency.REPLACE_ONE else 1
        most = event.decay * (reach * float(event.sensitivity)) * (1 + 1e-15)
        if most == math.inf:
            return np.full_like(orders, math.inf)
        event = ApproximateDP(epsilon=most, delta=0.0)
    losses, masses, _ = outcomes(mechanism=event, adjacency=adjacency)
    possible = masses > 0
    logs = np.log(masses[possible])[:, None] + np.outer(losses[possible], orders - 1)
    return np.asarray(np.maximum(np.logaddexp.reduce(logs, axis=0), 0.0) / (orders - 1))


def _skellam(variance: float, shift: float, orders: Array) -> Array:
    """Agarwal, Kairouz & Liu 2021 (arXiv 2110.04995), corollary 4.1, at the next whole order."""
    if not 1e-100 < variance < 1e100 or shift > 1e100:
        return np.full_like(orders, math.inf)
    whole = np.ceil(orders)
    fine = ((2 * whole - 1) * shift**2 + 6 * shift) / (4 * variance**2)
    return whole * shift**2 / (2 * variance) + np.minimum(fine, 3 * shift / (2 * variance))
