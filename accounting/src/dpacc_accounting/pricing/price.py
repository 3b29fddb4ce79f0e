"""What an event costs: ε at a δ, or δ at an ε."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from dpacc_accounting.events.arguments import (
    LEAST_DELTA,
    an_event,
    finite_epsilon,
    require_delta,
    require_unit,
)
from dpacc_accounting.events.event import (
    ZCDP,
    Composed,
    Event,
    Gaussian,
    PoissonSampled,
    Repeated,
    Selected,
)
from dpacc_accounting.events.fields import nested_events, shown
from dpacc_accounting.events.flattening import Release, pieces, releases
from dpacc_accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpacc_accounting.guarantee import METHOD_NAMES, Adjacency, Guarantee
from dpacc_accounting.pricing.lower_bounds import (
    least_event,
    needs_least_event,
    several_choices,
)
from dpacc_accounting.pricing.outright_claims import NOTHING, Claim, outright_claim


def epsilon(
    *,
    event: Event,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Guarantee:
    """The smallest certified ε with which `event` is (ε, δ)-private.

    Args:
        event: what is released about the same data.
        delta: δ in (0, 1).
        adjacency: add-or-remove (sums differ by <= C) or replace-one (by <= 2C).
        unit: whose data one unit is, for the record.
        method: "pld" (tight, between certified bounds), "rdp" (independent, looser) or
            "gaussian" (closed form, unsampled Gaussians only). A search beside other events
            (Selected) and zCDP are priced by "rdp" where "pld" is asked for; the guarantee says
            which.

    Returns:
        A guarantee with infinite ε where there is none (noise multiplier 0).

    Raises:
        ValueError: an argument is out of range, or `method` cannot price `event`.

    Source: Doroshenko et al. 2022 (arXiv 2207.04380); Mironov, Talwar & Zhang 2019
    (arXiv 1908.10530); Balle & Wang 2018 (arXiv 1805.06530).

    >>> from dpacc_accounting import Gaussian, PoissonSampled, Repeated
    >>> step = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))
    >>> print(epsilon(event=Repeated(event=step, times=1000), delta=1e-5))
    (ε = 1.829, δ = 1e-05)-DP, add-or-remove adjacency, unit: example, PLD
    """
    event, delta = an_event(event), require_delta(delta)
    adjacency = _checked(adjacency, unit, method)
    method = _method_for(event, method)
    low, high = _event_epsilon(event, adjacency, delta, method)
    return Guarantee(
        epsilon=high,
        delta=delta,
        adjacency=adjacency,
        unit=unit,
        method=method,
        slack=high - low if math.isfinite(high) else math.inf,
    )


def delta(
    *,
    event: Event,
    epsilon: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Guarantee:
    """The smallest certified δ with which `event` is (ε, δ)-private.

    Args:
        event: what is released about the same data.
        epsilon: ε >= 0.
        adjacency: as in `epsilon`.
        unit: whose data one unit is, for the record.
        method: as in `epsilon`.

    Returns:
        A guarantee with this ε and that δ; δ = 1 where there is none.

    Raises:
        ValueError: an argument is out of range, or `method` cannot price `event`.

    Source: as for `epsilon`.

    >>> from dpacc_accounting import Gaussian
    >>> round(delta(event=Gaussian(noise_multiplier=1.0), epsilon=1.0).delta, 6)
    0.126937
    """
    event, epsilon = an_event(event), finite_epsilon(epsilon)
    adjacency = _checked(adjacency, unit, method)
    method = _method_for(event, method)
    bound, possible = _event_delta(event, adjacency, epsilon, method)
    if possible:
        # Normal noise never reaches δ = 0, although a double may underflow to it.
        bound = max(bound, math.ulp(0.0))
    low = 0.0
    if LEAST_DELTA <= bound < 1:
        low = min(_event_epsilon(event, adjacency, bound, method)[0], epsilon)
    return Guarantee(
        epsilon=epsilon,
        delta=bound,
        adjacency=adjacency,
        unit=unit,
        method=method,
        slack=epsilon - low,
    )


def _checked(adjacency: Adjacency, unit: str, method: str) -> Adjacency:
    if not isinstance(method, str) or method not in METHOD_NAMES:
        raise ValueError(
            f"method={shown(method)} is unknown; choose one of {', '.join(METHOD_NAMES)}"
        )
    require_unit(unit)
    return Adjacency(adjacency)


def _method_for(event: Event, method: str) -> str:
    """Selections have privacy profiles, which do not compose; their Rényi bounds do."""
    if method == "pld" and any(isinstance(part, ZCDP) for part in nested_events(event)):
        return "rdp"
    if method != "pld" or not any(isinstance(part, Selected) for part in nested_events(event)):
        return method
    return "pld" if _only_selection(event) else "rdp"


def _event_epsilon(
    event: Event, adjacency: Adjacency, delta: float, method: str
) -> tuple[float, float]:
    low, high = _priced_epsilon(event, adjacency, delta, method)
    least = _least(event, adjacency)
    if least != event:
        low = _event_epsilon(least, adjacency, delta, "pld")[0]
    high = min(high, _claim(event, adjacency).epsilon_at(delta=delta))
    return min(low, high), high


def _least(event: Event, adjacency: Adjacency) -> Event:
    """What bounds `event` from below, where it is not `event` itself."""
    if not needs_least_event(event=event):
        return event
    if any(isinstance(part, Selected) for part in nested_events(event)):
        return Composed(events=())
    return least_event(event=event, adjacency=adjacency)


def _claim(event: Event, adjacency: Adjacency) -> Claim:
    if all(isinstance(part, Gaussian | PoissonSampled | Repeated) for part in nested_events(event)):
        return NOTHING
    return outright_claim(event=event, adjacency=adjacency)


def _priced_epsilon(
    event: Event, adjacency: Adjacency, delta: float, method: str
) -> tuple[float, float]:
    others = pieces(event=event)[1]
    if not others or method == "gaussian":
        return _epsilon_interval(releases(event=event), adjacency, delta, method)
    if method == "rdp":
        from dpacc_accounting.renyi.divergence import event_rdp_epsilon

        return 0.0, event_rdp_epsilon(event=event, adjacency=adjacency, delta=delta)
    if chosen := _only_selection(event):
        return _selected_epsilon(chosen, adjacency, delta)
    from dpacc_accounting.pricing.certified_bounds import event_epsilon_bounds

    bounds = event_epsilon_bounds(event=event, adjacency=adjacency, delta=delta)
    high = bounds.high
    if several_choices(event=event):
        from dpacc_accounting.renyi.divergence import event_rdp_epsilon

        # Order by order the worst choice is one that there is.
        with suppress(ValueError):
            high = min(high, event_rdp_epsilon(event=event, adjacency=adjacency, delta=delta))
    return min(bounds.low, high), high


def _event_delta(
    event: Event, adjacency: Adjacency, epsilon: float, method: str
) -> tuple[float, bool]:
    """δ, and whether any larger loss is possible at all."""
    claim = _claim(event, adjacency)
    bound, possible = _priced_delta(event, adjacency, epsilon, method)
    return min(bound, claim.delta_at(epsilon=epsilon)), possible and epsilon < claim.epsilon


def _priced_delta(
    event: Event, adjacency: Adjacency, epsilon: float, method: str
) -> tuple[float, bool]:
    if not pieces(event=event)[1] or method == "gaussian":
        counts = releases(event=event)
        return _delta_bound(counts, adjacency, epsilon, method), bool(counts)
    if method == "rdp":
        from dpacc_accounting.renyi.divergence import event_rdp_delta

        return event_rdp_delta(event=event, adjacency=adjacency, epsilon=epsilon), True
    if chosen := _only_selection(event):
        left = epsilon - _selection_cost(chosen, adjacency)
        once, possible = _event_delta(chosen.event, adjacency, max(left, 0.0), method)
        return (min(chosen.mean_runs * once, 1.0) if left >= 0 else 1.0), possible
    from dpacc_accounting.pricing.certified_bounds import event_delta_bounds

    bound = event_delta_bounds(event=event, adjacency=adjacency, epsilon=epsilon).high
    if several_choices(event=event):
        from dpacc_accounting.renyi.divergence import event_rdp_delta

        with suppress(ValueError):
            known = event_rdp_delta(event=event, adjacency=adjacency, epsilon=epsilon)
            bound = min(bound, known)
    return bound, True


def _only_selection(event: Event) -> Selected | None:
    """The selection that `event` amounts to, if it is nothing else."""
    gaussians, others = pieces(event=event)
    alone = not gaussians and [*others.values()] == [1]
    return other if alone and isinstance(other := next(iter(others)), Selected) else None


def _selected_epsilon(event: Selected, adjacency: Adjacency, delta: float) -> tuple[float, float]:
    """One run's ε at δ/m and the price of choosing; at least that of a run chosen blindly."""
    if delta / event.mean_runs < LEAST_DELTA:
        return 0.0, math.inf
    once = _event_epsilon(event.event, adjacency, delta / event.mean_runs, "pld")[1]
    if once == math.inf:
        return 0.0, once
    some = -math.expm1(-event.mean_runs) if math.isinf(event.shape) else 1.0
    blind = _event_epsilon(event.event, adjacency, delta / some, "pld")[0] if delta < some else 0.0
    return blind, once + _selection_cost(event, adjacency)


def _selection_cost(event: Selected, adjacency: Adjacency) -> float:
    from dpacc_accounting.selection import selection_cost

    return selection_cost(
        event=event, base_delta=lambda e: _event_delta(event.event, adjacency, e, "pld")[0]
    )


def _epsilon_interval(
    counts: Mapping[Release, int], adjacency: Adjacency, delta: float, method: str
) -> tuple[float, float]:
    if not counts:
        return 0.0, 0.0
    if any(release.silent for release in counts):
        return 0.0, math.inf
    if method == "rdp":
        from dpacc_accounting.renyi.sampled_gaussian import rdp_epsilon

        return 0.0, rdp_epsilon(counts=counts, adjacency=adjacency, delta=delta)
    if method == "gaussian" or _unsampled(counts):
        exact = gaussian_epsilon(mu=_gaussian_mu(counts, adjacency), delta=delta)
        return exact, exact
    return _certified_epsilon(tuple(counts.items()), adjacency, delta)


# A run's price is asked for again by its statement, its report and every chart.
@lru_cache(maxsize=128)
def _certified_epsilon(
    counts: tuple[tuple[Release, int], ...], adjacency: Adjacency, delta: float
) -> tuple[float, float]:
    from dpacc_accounting.pricing.certified_bounds import epsilon_bounds

    bounds = epsilon_bounds(counts=dict(counts), adjacency=adjacency, delta=delta)
    return bounds.low, bounds.high


def _delta_bound(
    counts: Mapping[Release, int], adjacency: Adjacency, epsilon: float, method: str
) -> float:
    if not counts:
        return 0.0
    if any(release.silent for release in counts):
        return 1.0
    if method == "rdp":
        from dpacc_accounting.renyi.sampled_gaussian import rdp_delta

        return rdp_delta(counts=counts, adjacency=adjacency, epsilon=epsilon)
    if method == "gaussian" or _unsampled(counts):
        return gaussian_delta(mu=_gaussian_mu(counts, adjacency), epsilon=epsilon)
    from dpacc_accounting.pricing.certified_bounds import delta_bounds

    return delta_bounds(counts=counts, adjacency=adjacency, epsilon=epsilon).high


def _unsampled(counts: Mapping[Release, int]) -> bool:
    return all(release.probability == 1 for release in counts)


def _gaussian_mu(counts: Mapping[Release, int], adjacency: Adjacency) -> float:
    sampled = [release for release in counts if release.probability < 1]
    if sampled:
        raise ValueError(
            f"method='gaussian' has no closed form for Poisson sampling "
            f"(probability={sampled[0].probability}); use method='pld'"
        )
    (release,) = counts
    return (2 if adjacency is Adjacency.REPLACE_ONE else 1) / release.noise_multiplier
