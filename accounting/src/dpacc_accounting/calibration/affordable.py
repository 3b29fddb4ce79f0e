"""Solve for what a given noise affords: steps, epochs, batch size, ε or δ.

Every search ends on an integer whose price was evaluated and is within the budget, beside the next
integer, whose price was evaluated and is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from dpacc_accounting.calibration.noise import require_epsilon
from dpacc_accounting.calibration.training_runs import (
    MOST_STEPS,
    Calibration,
    TrainingRun,
    require_sizes,
    whole_steps,
)
from dpacc_accounting.events.arguments import require_delta
from dpacc_accounting.events.fields import real
from dpacc_accounting.gaussian import gaussian_mu
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.small_delta import require_small_delta, warn_of_large_delta


def calibrate_steps(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The most steps T <= 10¹² that stay (ε, δ)-private: T does, and T + 1 does not.

    Args:
        dataset_size: number of privacy units N.
        batch_size: expected logical batch size, q·N.
        noise_multiplier: σ > 0, noise standard deviation over clipping norm.
        epsilon: target ε > 0.
        delta: target δ in (0, 1).
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian", as in `epsilon`.

    Raises:
        ValueError: an argument is out of range, one step alone exceeds the budget, or far more
            than 10¹² steps fit; in one line, with the values and the remedy.

    Source: Abadi et al. 2016 (arXiv 1607.00133); pricing as in `epsilon`.

    >>> plan = calibrate_steps(dataset_size=67349, batch_size=256, noise_multiplier=0.4636,
    ...                        epsilon=8.0, delta=1e-5)
    >>> plan.steps, plan.guarantee.epsilon <= 8.0
    (789, True)
    """
    rate, noise_multiplier = _checked(dataset_size, batch_size, noise_multiplier)
    epsilon, delta = require_epsilon(epsilon), _small(delta, dataset_size)
    once = TrainingRun(rate, 1, adjacency, unit, method)
    return _most_steps(once, noise_multiplier, epsilon, delta)


def _most_steps(
    once: TrainingRun, noise_multiplier: float, epsilon: float, delta: float
) -> Calibration:
    """As many steps like the one of `once` as are affordable."""

    def planned(steps: int) -> Calibration:
        return replace(once, steps=steps).at_delta(noise_multiplier, delta=delta)

    start = _central_limit_steps(once, noise_multiplier, epsilon, delta)
    if start > 100 * MOST_STEPS:
        raise ValueError(
            f"epsilon={epsilon} affords more than {MOST_STEPS:.0e} steps with "
            f"noise_multiplier={noise_multiplier}; lower the noise"
        )
    found = _most(planned, target=epsilon, start=start, limit=MOST_STEPS)
    if isinstance(found, Guarantee):
        raise ValueError(
            f"epsilon={epsilon} is exceeded by one step alone, which costs {found.epsilon:.6g} "
            f"with noise_multiplier={noise_multiplier}; raise the noise or lower the batch size"
        )
    return found


def calibrate_epochs(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The most whole expected passes over the data that stay (ε, δ)-private.

    T = ⌈E · N / B⌉ for the largest integer E whose T is at most that of `calibrate_steps`; E is
    `steps * batch_size // dataset_size` of the result. Arguments as in `calibrate_noise`.

    Raises:
        ValueError: as in `calibrate_steps`, or not even one epoch fits.

    Source: as for `calibrate_steps`.

    >>> plan = calibrate_epochs(dataset_size=67349, batch_size=256, noise_multiplier=0.464,
    ...                         epsilon=8.0, delta=1e-5)
    >>> plan.steps
    790
    """
    dataset_size, batch_size = require_sizes(dataset_size, batch_size)
    _, noise_multiplier = _checked(dataset_size, batch_size, noise_multiplier)
    once = TrainingRun(batch_size / dataset_size, 1, adjacency, unit, method)
    target, delta = require_epsilon(epsilon), _small(delta, dataset_size)
    most = _most_steps(once, noise_multiplier, target, delta)
    epochs = most.steps * batch_size // dataset_size
    if epochs == 0:
        raise ValueError(
            f"epsilon={epsilon} affords {most.steps} steps and not the "
            f"{-(-dataset_size // batch_size)} of one epoch with noise_multiplier="
            f"{noise_multiplier}; raise the noise, or run that many steps with calibrate_steps"
        )
    steps = -(-epochs * dataset_size // batch_size)
    return replace(once, steps=steps).at_delta(noise_multiplier, delta=delta)


def calibrate_batch_size(
    *,
    dataset_size: int,
    noise_multiplier: float,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """A batch size B that stays (ε, δ)-private where B + 1 does not, or N; B = q·N of the result.

    With `steps` fixed this is the largest. With `epochs` fixed, ⌈epochs · N / B⌉ falls by whole
    steps, so that a larger B may fit again where its last step is saved. Arguments as in
    `calibrate_noise`.

    Raises:
        ValueError: an argument is out of range, or batches of one unit exceed the budget.

    Source: as for `calibrate_steps`.

    >>> plan = calibrate_batch_size(dataset_size=67349, noise_multiplier=0.5, steps=789,
    ...                             epsilon=8.0, delta=1e-5)
    >>> round(plan.sample_rate * 67349), plan.guarantee.epsilon <= 8.0
    (379, True)
    """
    dataset_size, _ = require_sizes(dataset_size, 1)
    _, noise_multiplier = _checked(dataset_size, 1, noise_multiplier)
    epsilon, delta = require_epsilon(epsilon), _small(delta, dataset_size)

    def planned(batch_size: int) -> Calibration:
        count = whole_steps(dataset_size, batch_size, epochs, steps)
        run = TrainingRun(batch_size / dataset_size, count, adjacency, unit, method)
        return run.at_delta(noise_multiplier, delta=delta)

    found = _most(planned, target=epsilon, start=dataset_size / 100, limit=dataset_size)
    if isinstance(found, Guarantee):
        raise ValueError(
            f"epsilon={epsilon} is exceeded even by batch_size=1, which costs "
            f"{found.epsilon:.6g} with noise_multiplier={noise_multiplier}; raise the noise or "
            "shorten the run"
        )
    return found


def calibrate_epsilon(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    epochs: float | None = None,
    steps: int | None = None,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The least certified ε of a training run at δ. Arguments as in `calibrate_noise`.

    Raises:
        ValueError: an argument is out of range.

    Source: as for `epsilon`.

    >>> run = calibrate_epsilon(dataset_size=50_000, batch_size=500, noise_multiplier=1.0,
    ...                         steps=1000, delta=1e-5)
    >>> round(run.guarantee.epsilon, 3)
    1.828
    """
    rate, noise_multiplier = _checked(dataset_size, batch_size, noise_multiplier)
    delta = _small(delta, dataset_size)
    count = whole_steps(dataset_size, batch_size, epochs, steps)
    run = TrainingRun(rate, count, adjacency, unit, method)
    return run.at_delta(noise_multiplier, delta=delta)


def calibrate_delta(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The least certified δ of a training run at ε >= 0. Arguments as in `calibrate_noise`.

    Raises:
        ValueError: an argument is out of range.

    Source: as for `delta`.

    >>> run = calibrate_delta(dataset_size=100_000, batch_size=1000, noise_multiplier=1.0,
    ...                       steps=1000, epsilon=1.8285)
    >>> f"{run.guarantee.delta:.2e}"
    '1.00e-05'
    """
    rate, noise_multiplier = _checked(dataset_size, batch_size, noise_multiplier)
    count = whole_steps(dataset_size, batch_size, epochs, steps)
    run = TrainingRun(rate, count, adjacency, unit, method)
    return run.at_epsilon(noise_multiplier, epsilon=epsilon)


def _most(
    planned: Callable[[int], Calibration], *, target: float, start: float, limit: int
) -> Calibration | Guarantee:
    """The plan of the last integer within `target`, or the guarantee of 1 where that exceeds it.

    Guesses follow a straight line of ln ε over ln n through the last two prices, and turn to
    halving where it does not close in.
    """
    low, high = 0, limit + 1
    best: Calibration | None = None
    seen: list[tuple[float, float]] = []
    guess = min(max(round(start), 1), limit)
    while True:
        plan = planned(guess)
        price = plan.guarantee.epsilon
        if price <= target:
            low, best = guess, plan
        else:
            high = guess
            if guess == 1:
                return plan.guarantee
        if high - low == 1:
            break
        seen.append((math.log(guess), math.log(max(price, 1e-300) / target)))
        guess = _next_guess(seen, low, high)
    return best if best else planned(1).guarantee


def _next_guess(seen: list[tuple[float, float]], low: int, high: int) -> int:
    at, excess = seen[-1]
    slope = 0.5
    if len(seen) > 1 and at != seen[-2][0]:
        slope = (excess - seen[-2][1]) / (at - seen[-2][0])
    middle = math.sqrt(max(low, 1) * high)
    if not (math.isfinite(excess) and slope > 0.05) or len(seen) % 4 == 0:
        aim = middle
    else:
        aim = math.exp(min(max(at - excess / slope, 0.0), 60.0))
        # Step across the root, so that the bracket closes from both sides.
        aim += 1 if excess < 0 else 0
    return min(max(math.floor(aim), low + 1), high - 1)


def _central_limit_steps(
    once: TrainingRun, noise_multiplier: float, epsilon: float, delta: float
) -> float:
    """T with `q·√(T·(e^(s²/σ²) − 1)) = μ(ε, δ)`: a place to start from."""
    sensitivity = 2 if once.adjacency == Adjacency.REPLACE_ONE else 1
    mu = gaussian_mu(epsilon=epsilon, delta=delta)
    growth = math.expm1(min((sensitivity / noise_multiplier) ** 2, 700.0))
    return float((mu / once.sample_rate) ** 2 / growth)


def _small(delta: float, dataset_size: int) -> float:
    """δ, where it is below 1/N; with a warning where N asks for less."""
    delta = require_delta(delta)
    require_small_delta(delta=delta, dataset_size=dataset_size)
    warn_of_large_delta(delta=delta, dataset_size=dataset_size)
    return delta


def _checked(dataset_size: int, batch_size: int, noise_multiplier: float) -> tuple[float, float]:
    """The sampling probability, and σ, of arguments within range."""
    dataset_size, batch_size = require_sizes(dataset_size, batch_size)
    sigma = real(noise_multiplier, name="noise_multiplier")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(
            f"noise_multiplier={sigma} is not a finite number > 0; typical values: 0.3 to 10"
        )
    return batch_size / dataset_size, sigma
