"""Price releases by their privacy loss distribution, between two certified bounds.

For each dominating pair the loss of one release is put on a grid fitted to the target, composed
by a tilted Fourier transform, and read off; the upper bound is never below the exact value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from dpacc_accounting.events.event import Event
from dpacc_accounting.events.flattening import Release, pieces
from dpacc_accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.amplification import without_amplification
from dpacc_accounting.pld.composed_loss import Bounds, ComposedLoss
from dpacc_accounting.pld.dominating_pairs import dominating_pairs
from dpacc_accounting.pld.event_losses import (
    LARGEST_NOISE,
    LARGEST_SHIFT,
    directed_branches,
    participation_of,
    require_adjacency,
    resolved,
)
from dpacc_accounting.renyi.divergence import event_rdp_delta, event_rdp_epsilon
from dpacc_accounting.renyi.sampled_gaussian import rdp_delta, rdp_epsilon

# A grid does not resolve smaller ones; Rényi's bound is used there.
SMALLEST_DELTA = 1e-90
# A grid drowns in the rounding of more than these.
MOST_RELEASES = 10**12
# Where the grid cannot resolve a corner of the parameter space, Rényi's bound may be the better.
_WIDE = 0.9


def epsilon_bounds(*, counts: Mapping[Release, int], adjacency: Adjacency, delta: float) -> Bounds:
    """Bounds on the exact ε at `delta` of everything in `counts`, composed.

    Args:
        counts: how often each release is made; noise multipliers are positive.
        adjacency: which datasets are neighbours.
        delta: δ in (0, 1).

    Source: Doroshenko et al. 2022 (arXiv 2207.04380).

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = epsilon_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)
    >>> bounds.low <= 1.8281 <= bounds.high <= 1.8285
    True
    """
    if participation(counts=counts) <= delta:
        return Bounds(0.0, 0.0)
    cap = gaussian_epsilon(mu=joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    if _beyond_amplification(counts):
        return _without_amplification(counts, cap)
    if delta < SMALLEST_DELTA or sum(counts.values()) > MOST_RELEASES:
        return Bounds(0.0, min(cap, rdp_epsilon(counts=counts, adjacency=adjacency, delta=delta)))
    worst = worst_epsilon(losses=_composed_losses(counts, adjacency), delta=delta)
    low, high = worst.low, worst.high
    if low < _WIDE * high:
        high = min(high, rdp_epsilon(counts=counts, adjacency=adjacency, delta=delta))
    return Bounds(min(low, cap), min(high, cap))


def leading_excess(
    *,
    counts: Mapping[Release, int],
    adjacency: Adjacency,
    epsilon: float,
    delta: float,
    points: int,
) -> float:
    """`ln(ε at δ / epsilon)`, to first order, for the pair that is nearly always the worst.

    A search evaluates this, and `epsilon_bounds` only where it ends.

    Args:
        counts: how often each release is made.
        adjacency: which datasets are neighbours.
        epsilon: the ε > 0 to compare with.
        delta: δ in (0, 1).
        points: how large a grid may be: ε, from above, is the looser the smaller it is.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> excess = leading_excess(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=1.8284,
    ...                         delta=1e-5, points=10_000)
    >>> abs(excess) < 1e-3
    True
    """
    if participation(counts=counts) <= delta:
        return -math.inf
    cap = gaussian_epsilon(mu=joint_mu(counts=counts, adjacency=adjacency), delta=delta)
    known = math.log(max(cap, 1e-300) / epsilon)
    if _beyond_amplification(counts) or delta < SMALLEST_DELTA:
        high = epsilon_bounds(counts=counts, adjacency=adjacency, delta=delta).high
        return math.log(max(high, 1e-300) / epsilon)
    leader, *_ = _composed_losses(counts, adjacency)
    return min(leader.excess(epsilon=epsilon, delta=delta, points=points), known)


def delta_bounds(*, counts: Mapping[Release, int], adjacency: Adjacency, epsilon: float) -> Bounds:
    """Bounds on the exact δ at `epsilon` of everything in `counts`, composed.

    >>> counts = {Release(0.01, 1.0): 1000}
    >>> bounds = delta_bounds(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=1.8282)
    >>> bounds.low <= 1e-5 <= bounds.high <= 1.01e-5
    True
    """
    cap = gaussian_delta(mu=joint_mu(counts=counts, adjacency=adjacency), epsilon=epsilon)
    cap = min(cap, participation(counts=counts))
    if _beyond_amplification(counts):
        return _without_amplification(counts, cap)
    if sum(counts.values()) > MOST_RELEASES:
        known = rdp_delta(counts=counts, adjacency=adjacency, epsilon=epsilon)
        return Bounds(0.0, min(cap, known))
    best = worst_delta(losses=_composed_losses(counts, adjacency), epsilon=epsilon)
    high = best.high
    if best.low < _WIDE * high:
        high = min(high, rdp_delta(counts=counts, adjacency=adjacency, epsilon=epsilon))
    return Bounds(min(best.low, cap), min(high, cap))


def event_epsilon_bounds(*, event: Event, adjacency: Adjacency, delta: float) -> Bounds:
    """Bounds on the ε at `delta` of an event that holds more than sampled Gaussians.

    The lower one is of the dominating pair: a mixture whose coin stays hidden may cost less.

    >>> from dpacc_accounting.events.event import Composed, Gaussian, Mixture
    >>> half = Mixture(weights=(0.5, 0.5), events=(Gaussian(noise_multiplier=1.0),
    ...                                            Composed(events=())))
    >>> bounds = event_epsilon_bounds(event=half, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)
    >>> bounds.low <= gaussian_epsilon(mu=1.0, delta=2e-5) <= bounds.high <= 4.25
    True
    """
    if participation_of(event=event) <= delta:
        return Bounds(0.0, 0.0)
    mu = _unamplified_mu(event, adjacency)
    cap = gaussian_epsilon(mu=mu, delta=delta) if mu < math.inf else math.inf
    require_adjacency(event=event, adjacency=adjacency)
    if not resolved(event=event) or delta < SMALLEST_DELTA:
        return Bounds(0.0, min(cap, _renyi(event_rdp_epsilon, event, adjacency, delta=delta)))
    worst = worst_epsilon(losses=_event_losses(event, adjacency), delta=delta)
    return Bounds(min(worst.low, cap), min(worst.high, cap))


def event_leading_epsilon(*, event: Event, adjacency: Adjacency, delta: float) -> float:
    """The upper one of `event_epsilon_bounds`, for the pair that is nearly always the worst.

    A search evaluates this, and both bounds for all pairs only where it ends.

    >>> from dpacc_accounting.events.event import Gaussian, RandomlyAllocated
    >>> epoch = RandomlyAllocated(steps=4, event=Gaussian(noise_multiplier=2.0))
    >>> asked = {"event": epoch, "adjacency": Adjacency.ADD_OR_REMOVE, "delta": 1e-5}
    >>> bounds = event_epsilon_bounds(**asked)
    >>> bounds.low <= event_leading_epsilon(**asked) <= bounds.high
    True
    """
    if not resolved(event=event) or delta < SMALLEST_DELTA:
        return event_epsilon_bounds(event=event, adjacency=adjacency, delta=delta).high
    leader, *_ = _event_losses(event, adjacency)
    return leader.epsilon_above(delta=delta)[0]


def event_delta_bounds(*, event: Event, adjacency: Adjacency, epsilon: float) -> Bounds:
    """Bounds on the δ at `epsilon` of an event that holds more than sampled Gaussians.

    >>> from dpacc_accounting.events.event import Composed, Gaussian, Mixture
    >>> half = Mixture(weights=(0.5, 0.5), events=(Gaussian(noise_multiplier=1.0),
    ...                                            Composed(events=())))
    >>> bounds = event_delta_bounds(event=half, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=1.0)
    >>> bounds.low <= gaussian_delta(mu=1.0, epsilon=1.0) / 2 <= bounds.high <= 0.0636
    True
    """
    mu = _unamplified_mu(event, adjacency)
    known = gaussian_delta(mu=mu, epsilon=epsilon) if mu < math.inf else 1.0
    cap = min(participation_of(event=event), known)
    require_adjacency(event=event, adjacency=adjacency)
    if cap < SMALLEST_DELTA:
        return Bounds(0.0, cap)
    if not resolved(event=event):
        known = _renyi(event_rdp_delta, event, adjacency, epsilon=epsilon)
        return Bounds(0.0, min(cap, known))
    best = worst_delta(losses=_event_losses(event, adjacency), epsilon=epsilon)
    return Bounds(min(best.low, cap), min(best.high, cap))


def _renyi(
    bound: Callable[..., float], event: Event, adjacency: Adjacency, **asked: float
) -> float:
    """Rényi's bound where there is one: where grids do not reach, it still does."""
    try:
        return bound(event=event, adjacency=adjacency, **asked)
    except ValueError:
        return math.inf


def worst_epsilon(*, losses: Sequence[ComposedLoss], delta: float) -> Bounds:
    """Bounds on the largest ε of `losses` at `delta`."""
    leader, *others = sorted(losses, key=lambda loss: loss.estimate(delta=delta), reverse=True)
    high, grid = leader.epsilon_above(delta=delta)
    if high == math.inf:
        return Bounds(0.0, high)
    low = leader.epsilon_below(delta=delta, high=high, grid=grid)
    for loss in others:
        # One check shows that a loss is no worse, on a grid that need not resolve its own ε.
        if loss.delta_above(epsilon=high, delta=delta, like=grid) > delta:
            own, own_grid = loss.epsilon_above(delta=delta)
            low = max(low, loss.epsilon_below(delta=delta, high=own, grid=own_grid))
            high = max(high, own)
    return Bounds(low, high)


def worst_delta(*, losses: Sequence[ComposedLoss], epsilon: float) -> Bounds:
    """Bounds on the largest δ of `losses` at `epsilon`."""
    leader, *others = sorted(losses, key=lambda loss: loss.log_delta(epsilon=epsilon), reverse=True)
    best, grid = leader.delta_bounds(epsilon=epsilon)
    for loss in others:
        if loss.delta_above(epsilon=epsilon, delta=best.high, like=grid) > best.high:
            own, _ = loss.delta_bounds(epsilon=epsilon)
            best = Bounds(max(best.low, own.low), max(best.high, own.high))
    return best


def joint_mu(*, counts: Mapping[Release, int], adjacency: Adjacency) -> float:
    """μ of all releases composed without sampling: `sqrt(Σ n_i (s/σ_i)²)`, s = 1 or 2.

    >>> joint_mu(counts={Release(1.0, 2.0): 4}, adjacency=Adjacency.REPLACE_ONE)
    2.0
    """
    sensitivity = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    return math.hypot(*(math.sqrt(n) * sensitivity / r.noise_multiplier for r, n in counts.items()))


def participation(*, counts: Mapping[Release, int]) -> float:
    """The chance that a unit takes part at all, `1 − Π (1 − q_i)^n_i`: no δ need be larger.

    >>> round(participation(counts={Release(0.01, 1.0): 2}), 4)
    0.0199
    """
    if any(release.probability == 1 for release in counts):
        return 1.0
    return -math.expm1(math.fsum(n * math.log1p(-r.probability) for r, n in counts.items()))


def _beyond_amplification(counts: Mapping[Release, int]) -> bool:
    unsampled = all(release.probability == 1 for release in counts)
    noises = [release.noise_multiplier for release in counts]
    return unsampled or 1 / min(noises) > LARGEST_SHIFT or max(noises) > LARGEST_NOISE


def _without_amplification(counts: Mapping[Release, int], cap: float) -> Bounds:
    return Bounds(cap if all(r.probability == 1 for r in counts) else 0.0, cap)


def _unamplified_mu(event: Event, adjacency: Adjacency) -> float:
    """μ of all of `event`, its samples known; infinite where that is not a Gaussian with noise."""
    gaussians, others = pieces(event=without_amplification(event=event))
    silent = any(release.silent for release in gaussians)
    return math.inf if others or silent else joint_mu(counts=gaussians, adjacency=adjacency)


def _event_losses(event: Event, adjacency: Adjacency) -> list[ComposedLoss]:
    branches = directed_branches(event=event, adjacency=adjacency)
    return [ComposedLoss(branch.laws, branch.times) for branch in branches]


def _composed_losses(counts: Mapping[Release, int], adjacency: Adjacency) -> list[ComposedLoss]:
    """Every choice of P and Q, the same in every release."""
    pairs = zip(*(dominating_pairs(release=r, adjacency=adjacency) for r in counts), strict=True)
    return [ComposedLoss(choice, tuple(counts.values())) for choice in pairs]
