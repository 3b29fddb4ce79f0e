import math

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    Skellam,
    TruncatedPoissonSampled,
    delta,
    epsilon,
)
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.renyi.divergence import event_divergences, event_rdp_epsilon
from dpacc_accounting.renyi.sampled_gaussian import rdp_epsilon

NOISY = Gaussian(noise_multiplier=1.5)
EVENTS = [
    TruncatedPoissonSampled(probability=0.05, largest_batch=8, dataset_size=100, event=NOISY),
    Laplace(noise_multiplier=3.0),
    DiscreteGaussian(sigma=5.0, sensitivity=2),
    Skellam(variance=40.0, sensitivity=3),
    Mixture(weights=(0.3, 0.7), events=(NOISY, Composed(events=()))),
    ExponentialMechanism(epsilon=0.3),
]


@pytest.mark.parametrize("adjacency", [Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE])
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_renyi_is_never_below_the_certified_lower_bound(event, adjacency):
    """Two methods that share no numerics: RDP above PLD's lower bound, and not far from it."""
    for times in (1, 30):
        both = Repeated(event=event, times=times)
        tight = epsilon(event=both, delta=1e-5, adjacency=adjacency)
        loose = epsilon(event=both, delta=1e-5, adjacency=adjacency, method="rdp")
        assert tight.epsilon - tight.slack <= loose.epsilon
        if not isinstance(event, ExponentialMechanism):
            assert loose.slack == loose.epsilon
    assert loose.epsilon <= 1.6 * tight.epsilon
    back = delta(event=both, epsilon=loose.epsilon, adjacency=adjacency, method="rdp")
    assert back.delta == pytest.approx(1e-5, rel=0.3)


def test_sampled_gaussians_cost_what_they_always_did():
    """Through an event, or counted: the same bound."""
    event = Repeated(event=PoissonSampled(probability=0.01, event=NOISY), times=200)
    found = event_rdp_epsilon(event=event, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)
    counts = {Release(0.01, 1.5): 200}
    assert found == rdp_epsilon(counts=counts, adjacency=Adjacency.ADD_OR_REMOVE, delta=1e-5)


def test_a_laplace_divergence_is_the_integral():
    """At α = 3, by quadrature of its densities."""
    x = np.linspace(-60, 60, 1_200_001)
    one, other = np.exp(-np.abs(x)) / 2, np.exp(-np.abs(x - 0.8)) / 2
    exact = math.log(float((one**3 / other**2).sum() * (x[1] - x[0]))) / 2
    found = event_divergences(
        event=Laplace(noise_multiplier=1.25),
        adjacency=Adjacency.ADD_OR_REMOVE,
        orders=np.array([3.0]),
    )
    assert found[0] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("order", [1.005, 1.5, 3.0, 64.0])
@pytest.mark.parametrize("width", [1e-6, 0.1, 1.0, 8.0])
def test_a_bounded_range_is_worth_its_worst_choice(width, order):
    """Over all choices of two losses t and t − ε: never below, and above by rounding alone."""
    t = np.linspace(0, width, 200_003)[1:-1]
    likely = np.log(np.expm1(width - t)) + t - np.log(np.expm1(width))
    other = np.log(-np.expm1(likely))
    exact = np.logaddexp(likely + (order - 1) * t, other + (order - 1) * (t - width)) / (order - 1)
    choice = ExponentialMechanism(epsilon=width)
    found = event_divergences(
        event=choice, adjacency=Adjacency.ADD_OR_REMOVE, orders=np.array([order])
    )[0]
    assert found >= exact.max() * (1 - 1e-9) - 1e-13
    assert found == pytest.approx(float(exact.max()), rel=1e-6, abs=2e-12)
    assert found <= min(order * width**2 / 8, width)


def test_what_has_no_bound_is_refused_with_the_remedy():
    """Random allocation, and a Poisson sample of another mechanism than a Gaussian sum."""
    sampled = PoissonSampled(probability=0.1, event=Laplace(noise_multiplier=1.0))
    for event in (RandomlyAllocated(steps=5, event=NOISY), sampled):
        with pytest.raises(ValueError, match="method='pld'"):
            epsilon(event=event, delta=1e-5, method="rdp")
