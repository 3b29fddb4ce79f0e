"""Composed batches of fixed size against a direct convolution that shares nothing with ours."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency, Gaussian, Repeated, SampledWithoutReplacement, delta
from scipy.special import ndtr
from scipy.stats import norm

WHERE = Adjacency.REPLACE_ONE


def worst_curve(t: np.ndarray, share: float, mu: float) -> np.ndarray:
    """`max over both directions of E_Q[(dP/dQ − t)_+]` of one batch, by the normal law itself.

    Above t = 1, with P = (1 − γ)Q + γ·N(μ, 1), it is γ·h(1 + (t − 1)/γ) of the unsampled h. The
    neighbours swapped give the other direction, `h(t) = 1 − t + t·h(1/t)`.
    """
    above = np.maximum(t, 1 / t)
    far = 1 + (above - 1) / share
    half = np.log(far) / mu
    unsampled = norm.sf(half - mu / 2) - far * norm.sf(half + mu / 2)
    drawn = share * unsampled
    return np.where(t >= 1, drawn, 1 - t + t * drawn)


def composed_delta(share: float, mu: float, times: int, epsilon: float, step: float) -> float:
    """δ(ε) of `times` batches: the curve's second differences, convolved with themselves directly.

    The law on the grid of e^(k·step) takes the curve's values there, and straight lines between.
    """
    reach = math.ceil(math.log1p(share * math.expm1(mu * (mu / 2 + 9))) / step)
    loss = step * np.arange(-reach, reach + 1.0)
    t = np.exp(loss)
    height = worst_curve(t, share, mu)
    slope = np.diff(height) / np.diff(t)
    q_mass = np.diff(np.concatenate([[-1.0], slope, [0.0]]))
    once = q_mass * t
    whole, ends = once, reach
    for _ in range(times - 1):
        whole, ends = np.convolve(whole, once), ends + reach
    losses = step * np.arange(-ends, ends + 1.0)
    above = losses > epsilon
    return float((whole[above] * -np.expm1(epsilon - losses[above])).sum())


@pytest.mark.parametrize(
    ("size", "sigma", "times", "at"),
    [(5, 1.0, 4, 0.5), (10, 2.0, 12, 0.3), (50, 4.0, 8, 1.0), (2, 0.8, 5, 0.2)],
)
def test_composed_batches_agree_with_a_direct_convolution(size, sigma, times, at):
    """δ of several batches is within 1% of a convolution of the curve's own law, term by term.

    The reference has no Fourier transform, tilt or window, and halving its grid moves it less than
    0.3%.
    """
    once = SampledWithoutReplacement(
        sample_size=size, dataset_size=100, event=Gaussian(noise_multiplier=sigma)
    )
    found = delta(event=Repeated(event=once, times=times), epsilon=at, adjacency=WHERE)
    coarse, fine = (composed_delta(size / 100, 2 / sigma, times, at, h) for h in (4e-3, 2e-3))
    assert coarse == pytest.approx(fine, rel=3e-3)
    assert found.delta == pytest.approx(fine, rel=1e-2)
    assert found.delta >= fine * (1 - 3e-3)


def test_the_reference_has_the_known_curve():
    """At ε = 0 one whole batch moves the sum by 2C: δ = Φ(1/σ) − Φ(−1/σ)."""
    exact = ndtr(0.5) - ndtr(-0.5)
    assert composed_delta(1.0, 1.0, 1, 0.0, 1e-3) == pytest.approx(exact, rel=1e-6)
