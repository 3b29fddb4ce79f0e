import math

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    delta,
    epsilon,
    without_amplification,
)
from dpacc_accounting.pld.random_allocation import AllocatedLoss


def epoch(steps: int, sigma: float) -> RandomlyAllocated:
    """One epoch of so many Gaussian steps."""
    return RandomlyAllocated(steps=steps, event=Gaussian(noise_multiplier=sigma))


@pytest.mark.parametrize(("steps", "sigma", "at"), [(2, 1.0, 1.0), (10, 0.7, 1.0), (50, 0.5, 0.3)])
def test_simulated_epochs_lose_what_is_claimed(steps, sigma, at):
    """Ratios of 400,000 simulated epochs: δ in each direction within five standard errors."""
    draws = np.random.default_rng(5).normal(size=(400_000, steps)) / sigma
    half = 1 / (2 * sigma**2)
    absent = np.exp(draws - half).mean(axis=1)
    draws[:, 0] += 1 / sigma**2
    present = np.exp(draws - half).mean(axis=1)
    adding = np.maximum(1 - math.exp(at) * absent, 0)
    removing = np.maximum(1 - math.exp(at) / present, 0)
    found = delta(event=epoch(steps, sigma), epsilon=at).delta
    errors = [sample.std() / math.sqrt(len(sample)) for sample in (adding, removing)]
    assert adding.mean() - 5 * errors[0] <= found
    assert removing.mean() == pytest.approx(found, abs=5 * errors[1] + 1e-3 * found)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0])
def test_the_moments_are_those_of_a_mean_of_lognormals(sigma):
    """E_Q[S^k], k = 0 to 3, lies between the laws from below and from above."""
    steps, mu2 = 30, 1 / sigma**2
    exact = [1.0, 1.0, 1 + math.expm1(mu2) / steps]
    three = math.exp(3 * mu2) + 3 * (steps - 1) * math.exp(mu2) + (steps - 1) * (steps - 2)
    exact.append(three / steps**2)
    law = AllocatedLoss(steps=steps, shift=1 / sigma, adding=False)
    bounds = []
    for above in (False, True):
        atoms = law.atoms(step=1.0, outside=1e-25, above=above)
        # Under P, S^k has the mean E_Q[S^(k + 1)].
        bounds.append([(atoms.masses * np.exp((k - 1) * atoms.losses)).sum() for k in range(4)])
    for low, value, high in zip(bounds[0], exact, bounds[1], strict=True):
        assert low <= value * (1 + 1e-12)
        assert value * (1 - 1e-12) <= high <= value * (1 + 1e-2)


def test_the_bounds_are_close_and_epochs_compose():
    """Ten epochs of a hundred steps: certified within 0.2%, and below Poisson sampling's price."""
    event = Repeated(event=epoch(100, 1.0), times=10)
    found = epsilon(event=event, delta=1e-6)
    assert 0 < found.slack < 2e-3 * found.epsilon
    step = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))
    poisson = epsilon(event=Repeated(event=step, times=1000), delta=1e-6)
    assert 0.9 < found.epsilon / poisson.epsilon < 1
    back = delta(event=event, epsilon=found.epsilon)
    assert back.delta == pytest.approx(1e-6, rel=5e-3)


def test_one_step_is_no_allocation():
    """In an epoch of one step everybody takes part."""
    assert epsilon(event=epoch(1, 2.0), delta=1e-5) == epsilon(
        event=Gaussian(noise_multiplier=2.0), delta=1e-5
    )


def test_more_steps_and_more_noise_cost_less():
    """ε falls with either, and everything composed costs more than its parts."""
    dear = epsilon(event=epoch(4, 1.0), delta=1e-5).epsilon
    for cheaper in (epoch(8, 1.0), epoch(4, 1.3)):
        assert epsilon(event=cheaper, delta=1e-5).epsilon < dear
    both = Composed(events=(epoch(4, 1.0), Laplace(noise_multiplier=10.0)))
    assert epsilon(event=both, delta=1e-5).epsilon > dear


def test_what_is_not_proved_is_refused_with_the_remedy():
    """Replace-one, and other noise than Gaussian."""
    with pytest.raises(ValueError, match=r"ADD_OR_REMOVE.*without_amplification"):
        epsilon(event=epoch(5, 1.0), delta=1e-5, adjacency=Adjacency.REPLACE_ONE)
    other = RandomlyAllocated(steps=5, event=Laplace(noise_multiplier=1.0))
    with pytest.raises(ValueError, match="runs Laplace"):
        epsilon(event=other, delta=1e-5)
    bare = without_amplification(event=epoch(5, 1.0))
    assert bare == Gaussian(noise_multiplier=1.0)


def test_where_ratios_cannot_be_computed_the_unallocated_price_holds():
    """Below 1/25 of C, or for a δ of 1e-95, the Gaussian's own ε is stated; without noise none."""
    assert epsilon(event=epoch(5, 0.0), delta=1e-5).epsilon == math.inf
    for sigma, small in ((0.03, 1e-5), (2.0, 1e-95)):
        bare = epsilon(event=Gaussian(noise_multiplier=sigma), delta=small)
        found = epsilon(event=epoch(5, sigma), delta=small)
        assert found.epsilon == bare.epsilon
        assert found.slack == found.epsilon
    assert epsilon(event=epoch(5, 0.05), delta=1e-5).epsilon < 400


def test_a_deep_delta_is_resolved():
    """At δ = 1e-60 the bounds still are within 2%, and below the unallocated price."""
    found = epsilon(event=epoch(50, 2.0), delta=1e-60)
    assert found.slack < 0.02 * found.epsilon
    assert found.epsilon < epsilon(event=Gaussian(noise_multiplier=2.0), delta=1e-60).epsilon
