"""Solve for the noise that a target (ε, δ) needs, from the private side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.events import Event, Gaussian, PoissonSampled, Repeated
from dpacc_accounting.gaussian import gaussian_mu
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing import epsilon as price
from dpacc_accounting.pricing import require_delta, searched_epsilon

# A returned σ is rounded up to this many digits, and priced afterwards.
_DIGITS = 6
# The search extrapolates once ln ε is this close, and aims this much below the target.
_CLOSE = 2e-5
_AIM = 2e-6
# A final price above the target by more than this is not the search's own rounding.
_NEAR_MISS = 1e-4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A plan that meets its target, and the guarantee that was evaluated for it.

    Args:
        noise_multiplier: σ, noise standard deviation over clipping norm.
        steps: T, how many releases.
        sample_rate: q = batch_size / dataset_size, each unit's chance to take part in a step.
        guarantee: the price of exactly this σ, with ε at most the target.
        event: what is released, T Poisson-sampled Gaussians.
        sampling: how batches must be drawn for the guarantee to hold.
    """

    noise_multiplier: float
    steps: int
    sample_rate: float
    guarantee: Guarantee
    event: Event
    sampling: str = "poisson"


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
        delta: target δ in (0, 1).
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian" (only where batch_size = dataset_size).

    Raises:
        ValueError: an argument is out of range; the message shows it and the remedy.

    >>> plan = calibrate_noise(dataset_size=67349, batch_size=256, epochs=3, epsilon=8.0,
    ...                        delta=1e-5)
    >>> plan.steps, round(plan.noise_multiplier, 4), plan.guarantee.epsilon <= 8.0
    (790, 0.4636, True)
    """
    _require_sizes(dataset_size, batch_size)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon={epsilon} is not a finite number > 0; typical values: 1 to 10")
    require_delta(delta)
    count = _steps(dataset_size, batch_size, epochs, steps)
    rate, adjacency = batch_size / dataset_size, Adjacency(adjacency)
    _require_protection(rate, count, delta, dataset_size)

    def event(sigma: float) -> Event:
        release = PoissonSampled(probability=rate, event=Gaussian(noise_multiplier=sigma))
        return Repeated(event=release, times=count)

    def guarantee(sigma: float) -> Guarantee:
        return price(event=event(sigma), delta=delta, adjacency=adjacency, unit=unit, method=method)

    def searched(sigma: float) -> float:
        return searched_epsilon(event=event(sigma), delta=delta, adjacency=adjacency, method=method)

    start = _central_limit(rate, count, epsilon, delta, adjacency)
    sigma = _least_noise(searched, target=epsilon, start=start)
    if guarantee(sigma).epsilon > epsilon * (1 + _NEAR_MISS):
        # Another dominating pair is the worse one here: search on the whole price.
        sigma = _least_noise(lambda s: guarantee(s).epsilon, target=epsilon, start=(sigma, 1.0))
    nudge = 1e-7
    while (found := guarantee(sigma)).epsilon > epsilon:
        sigma, nudge = _round_up(sigma * (1 + nudge)), 2 * nudge
    return Calibration(
        noise_multiplier=sigma,
        steps=count,
        sample_rate=rate,
        guarantee=found,
        event=event(sigma),
    )


def _central_limit(
    rate: float, steps: int, epsilon: float, delta: float, adjacency: Adjacency
) -> tuple[float, float]:
    """σ₀ = s/√ln(1 + μ²/(q²T)), s = 1 or 2, and −d ln ε / d ln σ there.

    The central limit is always a little low: a place to start from, never to return.
    """
    mu = gaussian_mu(epsilon=epsilon, delta=delta)
    sensitivity = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    square = math.log1p(min((mu / rate) ** 2 / steps, 1e300))
    slope = square / -math.expm1(-square) * (1 + mu * mu / (2 * epsilon))
    return sensitivity / math.sqrt(square), slope


def _least_noise(
    price_of: Callable[[float], float], *, target: float, start: tuple[float, float]
) -> float:
    """The least σ, rounded up, with `price_of(σ) <= target`; the price falls as σ grows."""

    def margin(sigma: float) -> float:
        value = price_of(sigma)
        return math.log(target) - math.log(max(value, 1e-300)) if value < math.inf else -math.inf

    sigma, slope = start
    value = margin(sigma)
    for _ in range(8):
        if abs(value) < _CLOSE:
            return _round_up(sigma * math.exp((_AIM - value) / slope))
        step = -value / slope
        if not abs(step) < 1:
            break
        before, value = value, margin(sigma := sigma * math.exp(step))
        slope = (value - before) / step
        if slope <= 0:
            break
    return _round_up(_bracketed_noise(margin, start[0]))


def _bracketed_noise(margin: Callable[[float], float], start: float) -> float:
    """The slow and safe search, for prices that bend or jump."""
    low = high = start
    factor = 1.05
    if margin(start) < 0:
        while margin(high := low * factor) < 0:
            low, factor = high, factor**2
    else:
        while margin(low := high / factor) >= 0:
            high, factor = low, factor**2
    return last_negative(function=margin, low=low, high=high, tolerance=_CLOSE)[1]


def _round_up(value: float) -> float:
    context = Context(prec=_DIGITS, rounding=ROUND_CEILING)
    return float(context.create_decimal(Decimal(value)))


def _require_sizes(dataset_size: int, batch_size: int) -> None:
    for name, value in (("dataset_size", dataset_size), ("batch_size", batch_size)):
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name}={value} is not an integer >= 1")
    if batch_size > dataset_size:
        raise ValueError(
            f"batch_size={batch_size} exceeds dataset_size={dataset_size}; "
            "lower the batch size, or draw every unit in every step with batch_size=dataset_size"
        )


def _require_protection(rate: float, steps: int, delta: float, dataset_size: int) -> None:
    chance = -math.expm1(steps * math.log1p(-rate)) if rate < 1 else 1.0
    if chance <= delta:
        raise ValueError(
            f"delta={delta} is no less than the chance {chance:.3g} that a unit takes part at "
            f"all, so that no noise would be needed; choose delta below 1/{dataset_size}"
        )


def _steps(dataset_size: int, batch_size: int, epochs: float | None, steps: int | None) -> int:
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs={epochs} and steps={steps}: give exactly one of them")
    if steps is not None:
        if isinstance(steps, bool) or steps != int(steps) or steps < 1:
            raise ValueError(f"steps={steps} is not an integer >= 1")
        return int(steps)
    if epochs is None or not (math.isfinite(epochs) and epochs > 0):
        raise ValueError(f"epochs={epochs} is not a finite number > 0")
    # From the shortest decimal, so that 0.1 epochs of 1000 in batches of 10 are 10 steps, not 11.
    return math.ceil(Fraction(repr(float(epochs))) * dataset_size / batch_size)
