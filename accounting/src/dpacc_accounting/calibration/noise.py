"""Solve for the noise that a target (ε, δ) needs, from the private side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.calibration.training_runs import (
    Calibration,
    TrainingRun,
    require_protection,
    require_sizes,
    whole_steps,
)
from dpacc_accounting.events.arguments import require_delta, require_unit
from dpacc_accounting.events.fields import real
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.gaussian import gaussian_mu
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pricing.small_delta import require_small_delta, warn_of_large_delta

# Other budgets are refused: doubles lose their digits.
_LEAST_EPSILON, _MOST_EPSILON = 1e-12, 1e9
# A returned σ is rounded up to this many digits, and priced afterwards.
_DIGITS = 6
# The search extrapolates once ln ε is this close, and aims this much below the target.
_CLOSE = 2e-5
_AIM = 2e-6
# Before that it finds its way on smaller grids: so many points, until ln ε is so close.
_APPROACHES = ((1 << 15, 0.1), (1 << 18, 0.01), (1 << 21, _CLOSE))
# A final price above the target by more than this is not the search's own rounding.
_NEAR_MISS = 1e-3


def calibrate_noise(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The least noise (to 6 digits, rounded up) with which a training run is (ε, δ)-private.

    Args:
        dataset_size: number of privacy units N.
        batch_size: expected logical batch size, q·N.
        epochs: expected passes over the data; T = ⌈epochs · N / batch_size⌉. Or give `steps`.
        steps: T itself.
        epsilon: target ε > 0.
        delta: target δ, below 1/N; a warning says where it is above
            [`small_delta`][dpacc_accounting.pricing.small_delta].
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian" (only where batch_size = dataset_size).

    Raises:
        ValueError: an argument is out of range; the message shows it and the remedy.

    Source: Abadi et al. 2016 (arXiv 1607.00133) for the mechanism; pricing as in `epsilon`.

    >>> plan = calibrate_noise(dataset_size=67349, batch_size=256, epochs=3, epsilon=8.0,
    ...                        delta=1e-5)
    >>> plan.steps, round(plan.noise_multiplier, 4), plan.guarantee.epsilon <= 8.0
    (790, 0.4636, True)
    """
    dataset_size, batch_size = require_sizes(dataset_size, batch_size)
    delta = require_delta(delta)
    require_small_delta(delta=delta, dataset_size=dataset_size, unit=unit)
    warn_of_large_delta(delta=delta, dataset_size=dataset_size, unit=unit)
    epsilon = require_epsilon(epsilon)
    count = whole_steps(dataset_size, batch_size, epochs, steps)
    run = TrainingRun(batch_size / dataset_size, count, adjacency, unit, method)
    return _least_noise_of(run, epsilon, delta, dataset_size)


def noise_within(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The same for any δ in (0, 1), for which an attack's success stands. Arguments as above.

    Raises:
        ValueError: as in `calibrate_noise`.

    >>> noise_within(dataset_size=10, batch_size=10, steps=1, epsilon=1.0, delta=0.5).steps
    1
    """
    dataset_size, batch_size = require_sizes(dataset_size, batch_size)
    epsilon, delta = require_epsilon(epsilon), require_delta(delta)
    count = whole_steps(dataset_size, batch_size, epochs, steps)
    run = TrainingRun(batch_size / dataset_size, count, adjacency, unit, method)
    return _least_noise_of(run, epsilon, delta, dataset_size)


def noise_at_rate(
    *,
    sample_rate: float,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The same where only q is known: T = ⌈epochs / q⌉, and nobody can say whether δ < 1/N.

    Args:
        sample_rate: q in (0, 1], each unit's chance to take part in a step.
        epochs: expected passes over the data. Or give `steps`.
        steps: T itself.
        epsilon: target ε > 0.
        delta: target δ in (0, 1), to be well below 1/N.
        adjacency: as in `calibrate_noise`, like the rest.
        unit: for the record.
        method: how it is priced.

    Raises:
        ValueError: an argument is out of range.

    Source: as `calibrate_noise`, Abadi et al. 2016 (arXiv 1607.00133).

    >>> found = noise_at_rate(sample_rate=256 / 67349, epochs=3, epsilon=8.0, delta=1e-5)
    >>> found.steps, round(found.noise_multiplier, 4)
    (790, 0.4636)
    """
    rate = real(sample_rate, name="sample_rate")
    if not 0 < rate <= 1:
        raise ValueError(f"sample_rate={rate} is not in (0, 1]; it is batch size / dataset size")
    epsilon, delta = require_epsilon(epsilon), require_delta(delta)
    inverse = 1 / Fraction(repr(rate))
    count = whole_steps(inverse.numerator, inverse.denominator, epochs, steps)
    run = TrainingRun(rate, count, adjacency, unit, method)
    return _least_noise_of(run, epsilon, delta, math.ceil(inverse))


def _least_noise_of(
    run: TrainingRun, epsilon: float, delta: float, dataset_size: int
) -> Calibration:
    """The least σ of `run`, of arguments that are within range.

    Raises:
        ValueError: no noise would be needed, or the run cannot be priced.
    """
    require_protection(run.sample_rate, run.steps, delta, dataset_size)
    require_unit(run.unit)
    return _solved(replace(run, adjacency=Adjacency(run.adjacency)), epsilon, delta)


# Comparing runs, or planning one once more, asks for the same noise again.
@lru_cache(maxsize=256)
def _solved(run: TrainingRun, epsilon: float, delta: float) -> Calibration:
    def planned(sigma: float) -> Calibration:
        return run.at_delta(sigma, delta=delta)

    def excess(sigma: float) -> float:
        return _log_ratio(planned(sigma).guarantee.epsilon, epsilon)

    def leading(points: int) -> Callable[[float], float]:
        """The excess of the pair that is usually the worst, on a grid that need not resolve it."""
        from dpacc_accounting.pricing.certified_bounds import leading_excess

        return lambda sigma: leading_excess(
            counts={Release(run.sample_rate, sigma): run.steps},
            adjacency=run.adjacency,
            epsilon=epsilon,
            delta=delta,
            points=points,
        )

    place = _central_limit(run, epsilon, delta)
    for points, close in _APPROACHES if run.method == "pld" else ():
        place = _approach(leading(points), place, close)
    if run.method != "pld":
        place = _approach(excess, place, _CLOSE)
    sigma, slope = round_up(place[0]), place[1]
    found, nudge = planned(sigma), 1e-7
    if found.guarantee.epsilon > epsilon * (1 + _NEAR_MISS):
        # Another dominating pair is the worse one here: search on the whole price.
        sigma = round_up(_approach(excess, (sigma, 1.0), _CLOSE)[0])
        found = planned(sigma)
    while found.guarantee.epsilon > epsilon:
        needed = _log_ratio(found.guarantee.epsilon, epsilon) / slope
        sigma, nudge = round_up(sigma * (1 + max(needed, nudge))), 2 * nudge
        found = planned(sigma)
    return found


def _central_limit(run: TrainingRun, epsilon: float, delta: float) -> tuple[float, float]:
    """σ₀ = s/√ln(1 + μ²/(q²T)), s = 1 or 2, and −d ln ε / d ln σ there.

    The central limit is always a little low: a place to start from, never to return.
    """
    mu = gaussian_mu(epsilon=epsilon, delta=delta)
    sensitivity = 2 if run.adjacency is Adjacency.REPLACE_ONE else 1
    square = math.log1p(min((mu / run.sample_rate) ** 2 / run.steps, 1e300))
    slope = square / -math.expm1(-square) * (1 + mu * mu / (2 * epsilon))
    return sensitivity / math.sqrt(square), slope


def least_noise(
    price_of: Callable[[float], float], *, target: float, start: tuple[float, float]
) -> float:
    """The least σ, rounded up, with `price_of(σ) <= target`; the price falls as σ grows."""
    sigma, _ = _approach(lambda sigma: _log_ratio(price_of(sigma), target), start, _CLOSE)
    return round_up(sigma)


def _log_ratio(price: float, target: float) -> float:
    return math.log(max(price, 1e-300)) - math.log(target) if price < math.inf else math.inf


def _approach(
    excess_at: Callable[[float], float], start: tuple[float, float], close: float
) -> tuple[float, float]:
    """σ at which a falling excess is a little below 0, extrapolated from where it was `close`.

    From σ and −d excess / d ln σ at the start to both at the end.
    """
    sigma, slope = start
    excess = excess_at(sigma)
    for _ in range(8):
        step = (excess + (_AIM if abs(excess) < close else 0.0)) / slope
        if not abs(step) < 1:
            break
        sigma *= math.exp(step)
        if abs(excess) < close:
            return sigma, slope
        before, excess = excess, excess_at(sigma)
        slope = (before - excess) / step
        if not slope > 0:
            break
    return _bracketed_noise(lambda sigma: -excess_at(sigma), start[0], close), start[1]


def _bracketed_noise(margin: Callable[[float], float], start: float, close: float) -> float:
    """The slow and safe search, for prices that bend or jump."""
    low = high = start
    factor = 1.05
    if margin(start) < 0:
        while margin(high := low * factor) < 0:
            low, factor = high, factor**2
    else:
        while margin(low := high / factor) >= 0:
            high, factor = low, factor**2
    return last_negative(function=margin, low=low, high=high, tolerance=close)[1]


def round_up(value: float) -> float:
    """`value` in 6 significant digits, never below it.

    >>> round_up(0.46358311)
    0.463584
    """
    context = Context(prec=_DIGITS, rounding=ROUND_CEILING)
    return float(context.create_decimal(Decimal(value)))


def require_epsilon(value: float) -> float:
    """ε as a float from 1e-12 to 1e9.

    Raises:
        ValueError: with the value and typical ones.

    >>> require_epsilon(8)
    8.0
    """
    epsilon = real(value, name="epsilon")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon={epsilon} is not a finite number > 0; typical values: 1 to 10")
    if not _LEAST_EPSILON <= epsilon <= _MOST_EPSILON:
        raise ValueError(
            f"epsilon={epsilon} is outside [{_LEAST_EPSILON:g}, {_MOST_EPSILON:g}], beyond what "
            "a double resolves; typical values: 1 to 10"
        )
    return epsilon
