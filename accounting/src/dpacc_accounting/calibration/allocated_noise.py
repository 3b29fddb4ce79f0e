"""Solve for the noise of random allocation: each unit in exactly one step of each epoch."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from dpacc_accounting.calibration.noise import calibrate_noise, least_noise, round_up
from dpacc_accounting.calibration.training_runs import Calibration, require_sizes, whole_steps
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.participation import EpochAllocation, steps_an_epoch
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pricing.certified_bounds import event_leading_epsilon
from dpacc_accounting.pricing.price import epsilon as price_epsilon

# Where the search begins: how much less than Poisson's σ, times √E, and −d ln ε / d ln σ there.
_GAIN, _SLOPE = 0.4, 1.8


def calibrate_allocated_noise(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
) -> Calibration:
    """The least noise (to 6 digits, rounded up) for a run of random allocation ("balls and bins").

    An epoch has E = ⌈N/B⌉ steps, each unit is in exactly one of them, and the last epoch may be cut
    off: see [`EpochAllocation`][dpacc_accounting.events.participation.EpochAllocation].

    Args:
        dataset_size: number of privacy units N.
        batch_size: B, of which a step holds N/E ≤ B units on average.
        epochs: passes over the data; T = ⌈epochs · E⌉. Or give `steps`.
        steps: T itself.
        epsilon: target ε > 0.
        delta: target δ, below 1/N.
        adjacency: which datasets are neighbours; add-or-remove is what is priced.
        unit: whose data one unit is, for the record.

    Raises:
        ValueError: an argument is out of range; the message shows it and the remedy.

    Source: Chua et al. 2024 (arXiv 2412.16802); Feldman & Shenfeld 2025 (arXiv 2502.08202).

    >>> found = calibrate_allocated_noise(dataset_size=1000, batch_size=250, epochs=2, epsilon=8.0,
    ...                                   delta=1e-4)
    >>> found.steps, round(found.noise_multiplier, 3), found.guarantee.epsilon <= 8.0
    (8, 0.611, True)
    """
    if Adjacency(adjacency) is not Adjacency.ADD_OR_REMOVE:
        raise ValueError(
            f"random allocation with adjacency={adjacency}: it is priced under add-or-remove, "
            "where a dominating pair is known; use that, or Poisson sampling"
        )
    size, batch = require_sizes(dataset_size, batch_size)
    count = allocated_steps(dataset_size=size, batch_size=batch, epochs=epochs, steps=steps)
    poisson = calibrate_noise(
        dataset_size=size, batch_size=batch, steps=count, epsilon=epsilon, delta=delta, unit=unit
    )
    run = EpochAllocation(
        dataset_size=size,
        expected_batch_size=batch,
        noise_multiplier=poisson.noise_multiplier,
        planned_steps=count,
    )
    return _least_noise_of(run, float(epsilon), float(delta), unit)


@lru_cache(maxsize=32)
def _least_noise_of(run: EpochAllocation, epsilon: float, delta: float, unit: str) -> Calibration:
    """`run` has Poisson sampling's noise, from which the search begins."""
    steps, adjacency = run.planned_steps, Adjacency.ADD_OR_REMOVE

    def event(sigma: float) -> Event:
        return replace(run, noise_multiplier=sigma).event(steps=steps)

    def leading(sigma: float) -> float:
        return event_leading_epsilon(event=event(sigma), adjacency=adjacency, delta=delta)

    guess = run.noise_multiplier * (1 - _GAIN / math.sqrt(run.cycle))
    sigma = least_noise(leading, target=epsilon, start=(guess, _SLOPE))
    nudge = 1e-6
    while (found := price_epsilon(event=event(sigma), delta=delta, unit=unit)).epsilon > epsilon:
        sigma, nudge = round_up(sigma * (1 + nudge)), 2 * nudge
    return Calibration(
        noise_multiplier=sigma,
        steps=steps,
        sample_rate=run.probability,
        guarantee=found,
        event=event(sigma),
        sampling="allocated",
    )


def allocated_steps(
    *, dataset_size: int, batch_size: int, epochs: float | None, steps: int | None
) -> int:
    """T from whichever of `epochs` and `steps` is given: ⌈epochs · ⌈N/B⌉⌉.

    Raises:
        ValueError: neither or both are given, or the one given is out of range.

    >>> allocated_steps(dataset_size=1000, batch_size=300, epochs=2, steps=None)
    8
    """
    each = steps_an_epoch(dataset_size=dataset_size, expected_batch_size=batch_size)
    return whole_steps(each, 1, epochs, steps)
