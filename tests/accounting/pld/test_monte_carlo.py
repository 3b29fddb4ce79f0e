"""δ(ε) of extreme cases lies between our bounds as far as simulation, seeded, can tell."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.pricing.certified_bounds import delta_bounds
from scipy.optimize import brentq
from scipy.stats import norm

# Two-sided: a right accountant fails one such comparison in 100,000.
CONFIDENCE = 1 - 1e-5


def gains(q, sigma, times, epsilon, *, draws, seed):
    """Draws of `(1 − e^(ε − loss))_+` under P, whose mean is δ(ε), by importance sampling.

    P is removal: `(1 − q)·N(0, 1) + q·N(1/σ, 1)` against N(0, 1). Outputs are drawn on a grid of
    thousandths from P·e^(λ·loss), λ such that the total loss is ε on average, and weighed back.
    """
    output = np.arange(-12.0, 1 / sigma + 12.0, 1e-3)
    loss = np.logaddexp(math.log1p(-q), math.log(q) + output / sigma - 0.5 / sigma**2)
    mass = norm.pdf(output) * np.exp(loss)
    mass /= mass.sum()

    def tilted(tilt):
        grown = mass * np.exp(tilt * (loss - loss.max()))
        return grown / grown.sum(), math.log(grown.sum()) + tilt * loss.max()

    tilt = brentq(lambda t: times * float(tilted(t)[0] @ loss) - epsilon, 0.0, 1e3)
    chances, log_moment = tilted(tilt)
    drawn = np.random.default_rng(seed).choice(loss, p=chances, size=(times, draws)).sum(axis=0)
    weights = np.exp(times * log_moment - tilt * drawn)
    return weights * np.maximum(-np.expm1(epsilon - drawn), 0.0)


@pytest.mark.parametrize(
    ("q", "sigma", "times", "epsilon"),
    [
        (1e-7, 0.2, 10, 15.0),
        (1e-7, 0.2, 10, 40.0),
        (1e-4, 0.5, 30, 6.0),
        (1e-3, 0.5, 50, 14.0),
        (0.01, 1.0, 40, 6.0),
        (0.3, 0.05, 3, 300.0),
        (0.5, 10.0, 60, 1.5),
        (1e-4, 0.5, 20, 0.01),
    ],
)
def test_delta_of_extreme_cases_agrees_with_simulation(q, sigma, times, epsilon):
    """The confidence interval of a seeded simulation meets the certified one; both are narrow.

    δ goes from 0.2 down to 1e-25, for units that hardly ever take part and ε from 0.01 to 300.
    """
    drawn = gains(q, sigma, times, epsilon, draws=100_000, seed=2026)
    error = norm.ppf((1 + CONFIDENCE) / 2) * drawn.std() / math.sqrt(len(drawn))
    bounds = delta_bounds(
        counts={Release(q, sigma): times}, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=epsilon
    )
    assert error < 0.25 * drawn.mean()
    assert drawn.mean() - error <= bounds.high
    assert drawn.mean() + error >= bounds.low
    assert bounds.high <= bounds.low * 1.05


def test_a_wrong_price_is_told_apart():
    """Half the joins make a δ that the same simulation refuses: it is able to."""
    drawn = gains(1e-4, 0.5, 30, 6.0, draws=100_000, seed=1)
    error = norm.ppf((1 + CONFIDENCE) / 2) * drawn.std() / math.sqrt(len(drawn))
    wrong = delta_bounds(
        counts={Release(0.5e-4, 0.5): 30}, adjacency=Adjacency.ADD_OR_REMOVE, epsilon=6.0
    )
    assert drawn.mean() - error > wrong.high
