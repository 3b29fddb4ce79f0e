"""Solve for the scale of any event that a target (ε, δ) needs, from the private side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpacc_accounting.calibration.noise import least_noise, require_epsilon, round_up
from dpacc_accounting.events.arguments import require_delta
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.fields import real, shown
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.price import epsilon as price

_LEAST_SCALE, _MOST_SCALE = 1e-9, 1e12


@dataclass(frozen=True, kw_only=True)
class EventCalibration:
    """An event that meets its target, and the guarantee that was evaluated for it.

    Args:
        scale: what was solved for.
        event: the event of exactly this scale.
        guarantee: its price, with ε at most the target.
    """

    scale: float
    event: Event
    guarantee: Guarantee


def calibrate_event(
    *,
    event: Callable[[float], Event],
    epsilon: float,
    delta: float,
    start: float = 1.0,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> EventCalibration:
    """The least scale (to 6 digits, rounded up) with which an event is (ε, δ)-private.

    Args:
        event: the event of a given scale, the more private the larger: the noise, or one over what
            a choice may cost. Where a larger scale is not always more private, what is returned is
            private all the same, but need not be the least.
        epsilon: target ε > 0.
        delta: target δ in (0, 1).
        start: a scale to start from.
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: as in `epsilon`.

    Raises:
        ValueError: an argument is out of range, the event cannot be priced, or no scale from 1e-9
            to 1e12 is the least that is private enough.

    Source: pricing as in `epsilon`.

    >>> from dpacc_accounting import Laplace, Repeated
    >>> def counts(b: float) -> Event:
    ...     return Repeated(event=Laplace(noise_multiplier=b), times=4)
    >>> found = calibrate_event(event=counts, epsilon=2.0, delta=1e-9)
    >>> round(found.scale, 3), found.guarantee.epsilon <= 2.0
    (2.0, True)
    """
    if not callable(event):
        raise ValueError(f"event={shown(event)} is not a function from a scale to an event")
    epsilon, delta = require_epsilon(epsilon), require_delta(delta)
    start = real(start, name="start")
    if not _LEAST_SCALE <= start <= _MOST_SCALE:
        raise ValueError(f"start={start} is outside [{_LEAST_SCALE:g}, {_MOST_SCALE:g}]")

    def priced(scale: float) -> Guarantee:
        if not _LEAST_SCALE <= scale <= _MOST_SCALE:
            raise ValueError(
                f"epsilon={epsilon} at delta={delta} is met by no least scale from "
                f"{_LEAST_SCALE:g} to {_MOST_SCALE:g}; a larger scale must be more private"
            )
        return price(event=event(scale), delta=delta, adjacency=adjacency, unit=unit, method=method)

    scale = least_noise(lambda s: priced(s).epsilon, target=epsilon, start=(start, 1.0))
    nudge = 1e-6
    while (found := priced(scale)).epsilon > epsilon:
        scale, nudge = round_up(scale * (1 + nudge)), 2 * nudge
    return EventCalibration(scale=scale, event=event(scale), guarantee=found)
