import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.renyi.sampled_gaussian import rdp_delta, rdp_epsilon, renyi_divergence
from scipy.integrate import quad
from scipy.stats import norm

ADD = Adjacency.ADD_OR_REMOVE
REPLACE = Adjacency.REPLACE_ONE


def integrated(release: Release, order: float, replaced: bool) -> float:
    """Rényi divergence by adaptive integration of its definition."""
    q, shift = release.probability, 1 / release.noise_multiplier

    def integrand(z: float) -> float:
        p = np.log((1 - q) * norm.pdf(z) + q * norm.pdf(z - shift))
        other = (1 - q) * norm.pdf(z) + q * norm.pdf(z + shift) if replaced else norm.pdf(z)
        return math.exp(order * p + (1 - order) * np.log(other))

    moment, _ = quad(integrand, -12, 12 + order * shift, limit=500, epsabs=0, epsrel=1e-11)
    return math.log(moment) / (order - 1)


@pytest.mark.parametrize("order", [1.1, 2.0, 3.7, 8.0])
@pytest.mark.parametrize("adjacency", [ADD, REPLACE])
def test_the_divergence_is_its_definition(order, adjacency):
    """Integer sums and quadrature both equal the integral that defines the divergence."""
    release = Release(0.2, 1.5)
    ours = renyi_divergence(release=release, adjacency=adjacency, order=order)
    assert ours == pytest.approx(integrated(release, order, adjacency is REPLACE), rel=1e-8)


def test_tiny_sampling_keeps_its_digits():
    """At q = 1e-7 the divergence is q²α/2·(e^(1/σ²) − 1), its first term, to 1e-4."""
    release = Release(1e-7, 1.0)
    for order in (2.0, 2.5, 3.0):
        ours = renyi_divergence(release=release, adjacency=ADD, order=order)
        assert ours == pytest.approx(1e-14 * order / 2 * math.expm1(1), rel=1e-4)


def test_published_values():
    """ε of 1,000 steps at q = 0.01, σ = 1, δ = 1e-5 is 2.1014 at most, and δ goes back."""
    counts = {Release(0.01, 1.0): 1000}
    epsilon = rdp_epsilon(counts=counts, adjacency=ADD, delta=1e-5)
    assert 2.101 < epsilon <= 2.1014
    assert rdp_delta(counts=counts, adjacency=ADD, epsilon=epsilon) == pytest.approx(1e-5, rel=1e-3)
    narrow = {Release(0.01, 0.3): 1000}
    assert rdp_epsilon(counts=narrow, adjacency=ADD, delta=1e-5) < 79.4


@pytest.mark.parametrize("sigma", [0.02, 1e-3, 1e-6])
@pytest.mark.parametrize("order", [1.3, 2.5, 7.9])
def test_little_noise_is_not_missed_between_nodes(sigma, order):
    """`E_Q[(P/Q)^α] >= q^α·e^(α(α − 1)/(2σ²))`, where a grid would step over the peak."""
    ours = renyi_divergence(release=Release(0.3, sigma), adjacency=ADD, order=order)
    least = order / (2 * sigma**2) + order * math.log(0.3) / (order - 1)
    assert least * (1 - 1e-12) <= ours <= 2 * order / (2 * sigma**2)
