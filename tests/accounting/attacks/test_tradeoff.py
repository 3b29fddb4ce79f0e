"""Attack bounds hold for the attacks that can be computed, and are reached by the worst ones."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency, Gaussian, Guarantee, epsilon
from dpacc_accounting.attacks.tradeoff import advantage_bound, detection_bound
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm


def _guarantee(epsilon: float, delta: float) -> Guarantee:
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        adjacency=Adjacency.ADD_OR_REMOVE,
        unit="example",
        method="pld",
        slack=0.0,
    )


@given(st.floats(0, 2000), st.floats(0, 1), st.floats(0, 1))
def test_bounds_are_rates(epsilon: float, delta: float, alarms: float) -> None:
    """Any (ε, δ) gives a rate between guessing and certainty, without overflow."""
    promise = _guarantee(epsilon, delta)
    slack = 1e-12
    assert alarms - slack <= detection_bound(guarantee=promise, false_alarms=alarms) <= 1
    assert 0 <= advantage_bound(guarantee=promise) <= 1


@given(st.floats(0, 30), st.floats(0, 0.5))
def test_the_advantage_is_the_widest_gap(epsilon: float, delta: float) -> None:
    """The advantage bound is the largest distance of the detection bound from guessing."""
    promise = _guarantee(epsilon, delta)
    alarms = np.concatenate([np.linspace(0, 1, 2001), [(1 - delta) / (1 + math.exp(epsilon))]])
    gap = max(detection_bound(guarantee=promise, false_alarms=float(a)) - a for a in alarms)
    assert advantage_bound(guarantee=promise) == pytest.approx(gap, abs=1e-9)


def test_randomised_response_reaches_the_bound() -> None:
    """The best attack on randomised response is exactly as good as allowed."""
    promise = _guarantee(math.log(3), 0.0)
    assert detection_bound(guarantee=promise, false_alarms=0.25) == pytest.approx(0.75)
    assert advantage_bound(guarantee=promise) == pytest.approx(0.5)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-2])
def test_the_best_attack_on_a_gaussian_stays_below(sigma: float, delta: float) -> None:
    """The likelihood-ratio test between N(0, σ²) and N(1, σ²) never beats the bound."""
    promise = epsilon(event=Gaussian(noise_multiplier=sigma), delta=delta)
    for alarms in np.geomspace(1e-6, 1, 50):
        power = norm.cdf(norm.ppf(alarms) + 1 / sigma)
        assert power <= detection_bound(guarantee=promise, false_alarms=float(alarms)) + 1e-12
        assert power - alarms <= advantage_bound(guarantee=promise)
