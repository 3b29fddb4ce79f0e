"""Solve for the noise that keeps an attack's success below a target."""

from __future__ import annotations

import math

from dpacc_accounting.attacks.best_attack import lowest
from dpacc_accounting.attacks.tradeoff import detection_within
from dpacc_accounting.calibration.noise import (
    least_noise,
    noise_within,
    round_up,
)
from dpacc_accounting.calibration.training_runs import (
    Calibration,
    TrainingRun,
    require_protection,
    require_sizes,
    whole_steps,
)
from dpacc_accounting.events.arguments import require_rate
from dpacc_accounting.gaussian import gaussian_mu
from dpacc_accounting.guarantee import Adjacency

# The search over ε starts in the middle of its range, with steps of this share of it.
_FIRST_STEP = 0.25
_FINEST_STEP = 0.004


def calibrate_noise_to_advantage(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    advantage: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The least noise with which no attack's true positives exceed its false ones by more.

    ``δ(0) <= advantage``; the guarantee of the result is (0, δ(0)).

    Args:
        dataset_size: number of privacy units N.
        batch_size: expected logical batch size, q·N.
        epochs: expected passes over the data; T = ⌈epochs · N / batch_size⌉. Or give `steps`.
        steps: T itself.
        advantage: most by which true positives may exceed false positives, in (0, 1).
        adjacency: which datasets the attacker must tell apart.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian", as in `epsilon`.

    Raises:
        ValueError: an argument is out of range, or the target needs no noise.

    Source: Kulynych et al. 2024 (arXiv 2407.02191).

    >>> plan = calibrate_noise_to_advantage(dataset_size=1000, batch_size=1000, steps=4,
    ...                                     advantage=0.3829250)
    >>> round(plan.noise_multiplier, 4), plan.guarantee.delta <= 0.3829250
    (2.0, True)
    """
    dataset_size, batch_size = require_sizes(dataset_size, batch_size)
    advantage = _require_inside("advantage", advantage)
    count = whole_steps(dataset_size, batch_size, epochs, steps)
    run = TrainingRun(batch_size / dataset_size, count, adjacency, unit, method)
    require_protection(run.sample_rate, count, advantage, dataset_size)

    def planned(sigma: float) -> Calibration:
        return run.at_epsilon(sigma, epsilon=0.0)

    mu = gaussian_mu(epsilon=0.0, delta=advantage)
    square = math.log1p(min((mu / run.sample_rate) ** 2 / count, 1e300))
    sensitivity = 2 if adjacency == Adjacency.REPLACE_ONE else 1
    sigma = least_noise(
        lambda s: planned(s).guarantee.delta,
        target=advantage,
        start=(sensitivity / math.sqrt(square), 1.0),
    )
    nudge = 1e-6
    while (found := planned(sigma)).guarantee.delta > advantage:
        sigma, nudge = round_up(sigma * (1 + nudge)), 2 * nudge
    return found


def calibrate_noise_to_detection(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    true_positives: float,
    false_positives: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> Calibration:
    """The least noise with which no attack at a false-positive rate α catches more than τ.

    An (ε, δ) suffices if ``min(e^ε·α + δ, 1 − e^−ε·(1 − δ − α)) <= τ``, and one of them is also
    necessary: the least noise over them all is returned, with the guarantee that implies τ. The
    search over ε stops within about a thousandth of the least noise, above it. Other arguments as
    in `calibrate_noise`.

    Args:
        true_positives: τ, the largest true-positive rate allowed, above α and below 1.
        false_positives: α, the false-positive rate, in (0, 1).

    Raises:
        ValueError: an argument is out of range, τ <= α, or the target needs no noise.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.12; Kulynych et al. 2024
    (arXiv 2407.02191) for calibrating to it.

    >>> plan = calibrate_noise_to_detection(dataset_size=1000, batch_size=1000, steps=1,
    ...                                     true_positives=0.2595, false_positives=0.05)
    >>> 0.999 < plan.noise_multiplier < 1.002
    True
    """
    true_positives = _require_inside("true_positives", true_positives)
    false_positives = _require_inside("false_positives", false_positives)
    if true_positives <= false_positives:
        raise ValueError(
            f"true_positives={true_positives} is no more than false_positives={false_positives}, "
            "which guessing reaches; allow more true positives"
        )
    mirrored = true_positives + false_positives > 1
    alpha = 1 - true_positives if mirrored else false_positives
    caught = 1 - false_positives if mirrored else true_positives
    most = math.log(caught / alpha)
    plans: dict[float, Calibration] = {}

    def noise(epsilon: float) -> float:
        if not 0 < epsilon < most:
            return math.inf
        # A sliver less, so that rounding cannot lift the bound above the target.
        allowed = (caught - alpha * math.exp(epsilon)) * (1 - 1e-9) - 1e-15
        if not allowed > 0:
            return math.inf
        plans[epsilon] = noise_within(
            dataset_size=dataset_size,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            epsilon=epsilon,
            delta=allowed,
            adjacency=adjacency,
            unit=unit,
            method=method,
        )
        return plans[epsilon].noise_multiplier

    start, first, finest = most / 2, _FIRST_STEP * most, _FINEST_STEP * most
    best, _ = lowest(function=noise, start=start, step=first, finest=finest)
    found = plans[best]
    bound = detection_within(found.guarantee.epsilon, found.guarantee.delta, false_positives)
    if bound > true_positives:
        raise AssertionError(f"{found} allows {bound}, more than {true_positives}")
    return found


def _require_inside(name: str, value: float) -> float:
    rate = require_rate(name, value)
    if rate in (0, 1):
        raise ValueError(f"{name}={rate} is not strictly between 0 and 1; give such as 0.1")
    return rate
