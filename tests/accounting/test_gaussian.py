import math

import mpmath
import pytest
from dpacc_accounting import Adjacency, Gaussian, PoissonSampled, Repeated, delta, epsilon
from dpacc_accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu, mills_ratio
from hypothesis import given
from hypothesis import strategies as st


def exact_delta(mu: float, epsilon: float) -> float:
    """Balle & Wang's formula in 60 digits."""
    with mpmath.workdps(60):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        near = mpmath.ncdf(mu / 2 - epsilon / mu)
        return float(near - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu))


@given(st.floats(0.001, 50), st.floats(-4, 12))
def test_delta_keeps_its_digits_in_the_tail(mu, deviations):
    """δ agrees with 60-digit arithmetic to 1e-9, however small δ or μ, and where e^ε overflows."""
    epsilon = max(mu * mu / 2 + mu * deviations, 0.0)
    assert gaussian_delta(mu=mu, epsilon=epsilon) == pytest.approx(
        exact_delta(mu, epsilon), rel=1e-9
    )


@given(st.floats(0.001, 50), st.floats(-30, -1))
def test_epsilon_is_on_the_private_side_of_delta(mu, log_delta):
    """ε(δ) meets δ, and an ε smaller by 1e-9 does not."""
    delta = math.exp(log_delta)
    epsilon = gaussian_epsilon(mu=mu, delta=delta)
    assert gaussian_delta(mu=mu, epsilon=epsilon) <= delta
    if epsilon > 0:
        assert gaussian_delta(mu=mu, epsilon=epsilon * (1 - 1e-9)) > delta * (1 - 1e-9)


@given(st.floats(0.01, 100), st.floats(-30, -1))
def test_mu_inverts_epsilon(epsilon, log_delta):
    """μ(ε(μ, δ), δ) is μ again, from the private side."""
    delta = math.exp(log_delta)
    mu = gaussian_mu(epsilon=epsilon, delta=delta)
    assert gaussian_epsilon(mu=mu, delta=delta) == pytest.approx(epsilon, rel=1e-6)
    assert gaussian_delta(mu=mu, epsilon=epsilon) <= delta


def test_mills_ratio_is_continuous_where_its_formula_changes():
    """The continued fraction meets the closed form at z = 20 to 1e-13."""
    assert mills_ratio(20.0) == pytest.approx(mills_ratio(math.nextafter(20.0, 0)), rel=1e-13)


@pytest.mark.parametrize("sigma", [5e-324, 5.5e-309, 1e-300, 1e-160, 1e-154, 1e-101])
@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_noise_too_faint_for_a_double_promises_nothing(sigma, adjacency):
    """Where 1/σ or its square overflows, ε is infinite, and δ at least the chance to take part."""
    once = Gaussian(noise_multiplier=sigma)
    half = PoissonSampled(probability=0.5, event=once)
    for event, chance in ((once, 1.0), (Repeated(event=once, times=3), 1.0), (half, 0.5)):
        for method in ("pld", "rdp"):
            found = epsilon(event=event, delta=1e-5, adjacency=adjacency, method=method)
            assert found.epsilon == math.inf
        assert delta(event=event, epsilon=3.0, adjacency=adjacency).delta >= chance
    assert gaussian_delta(mu=math.inf, epsilon=3.0) == 1.0
    assert gaussian_epsilon(mu=1e200, delta=1e-5) == math.inf
