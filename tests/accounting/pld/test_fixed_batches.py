import math

import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    PoissonSampled,
    Repeated,
    SampledWithoutReplacement,
    calibrate_event,
    delta,
    epsilon,
)
from dpacc_accounting.gaussian import gaussian_delta

WHERE = Adjacency.REPLACE_ONE


def batch(size: int, sigma: float) -> SampledWithoutReplacement:
    """So many of a hundred units, in one Gaussian sum."""
    noisy = Gaussian(noise_multiplier=sigma)
    return SampledWithoutReplacement(sample_size=size, dataset_size=100, event=noisy)


@pytest.mark.parametrize("size", [1, 30, 99])
@pytest.mark.parametrize("at", [0.0, 0.5, 2.0])
def test_one_batch_has_a_closed_form(size, at):
    """δ(ln(1 + γ(e^ε − 1))) is γ times the unsampled δ(ε), whose sums differ by 2C."""
    share = size / 100
    exact = share * gaussian_delta(mu=2 / 1.5, epsilon=at)
    drawn = math.log1p(share * math.expm1(at))
    found = delta(event=batch(size, 1.5), epsilon=drawn, adjacency=WHERE).delta
    assert exact * (1 - 1e-9) <= found <= exact * 1.01


def test_composed_batches_cost_between_poisson_and_everything():
    """Over 100 steps: at least the tight price of Poisson samples, and less than no sampling."""
    fixed = epsilon(event=Repeated(event=batch(5, 1.0), times=100), delta=1e-5, adjacency=WHERE)
    step = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=1.0))
    poisson = epsilon(event=Repeated(event=step, times=100), delta=1e-5, adjacency=WHERE)
    full = epsilon(event=Repeated(event=batch(100, 1.0), times=100), delta=1e-5, adjacency=WHERE)
    assert poisson.epsilon < fixed.epsilon < full.epsilon / 2
    assert 0 <= fixed.slack <= 0.01 * fixed.epsilon


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("drawn", "units", "times", "sigma"),
    [(1, 10, 1, 20.0), (500, 1000, 128, 1000.0), (999, 1000, 2000, 2000.0), (16, 1000, 128, 0.015)],
)
@pytest.mark.parametrize("lost", [1e-12, 1e-6])
def test_much_noise_and_little_are_priced_from_both_sides(drawn, units, times, sigma, lost):
    """Grids that are coarse beside the losses: a lower bound all the same, below what is exact."""
    noisy = Gaussian(noise_multiplier=sigma)
    once = SampledWithoutReplacement(sample_size=drawn, dataset_size=units, event=noisy)
    found = epsilon(event=Repeated(event=once, times=times), delta=lost, adjacency=WHERE)
    whole = epsilon(event=Repeated(event=noisy, times=times), delta=lost, adjacency=WHERE)
    assert 0 <= found.epsilon - found.slack <= found.epsilon <= whole.epsilon
    if drawn == 1 and times == 1:
        # In closed form: ln(1 + γ(e^ε − 1)) at γ times the δ(ε) of the whole, by bisection.
        low, high = 0.0, 5.0
        for _ in range(60):
            middle = (low + high) / 2
            above = gaussian_delta(mu=2 / sigma, epsilon=middle) * drawn / units > lost
            low, high = (middle, high) if above else (low, middle)
        exact = math.log1p(drawn / units * math.expm1(high))
        assert found.epsilon - found.slack <= exact <= found.epsilon * (1 + 1e-9)
        assert found.slack < 1e-3 * found.epsilon


def test_a_calibration_passes_through_noise_of_every_size():
    """From far too much: the least scale is found, and nothing is refused on the way."""
    found = calibrate_event(
        event=lambda s: Repeated(event=batch(50, s), times=100),
        epsilon=0.3,
        delta=1e-3,
        start=500.0,
        adjacency=WHERE,
    )
    less = Repeated(event=batch(50, 0.99 * found.scale), times=100)
    assert found.guarantee.epsilon <= 0.3 < epsilon(event=less, delta=1e-3, adjacency=WHERE).epsilon


def test_add_or_remove_is_refused_with_the_remedy():
    """Datasets of different size have no batch of fixed size in common."""
    with pytest.raises(ValueError, match="REPLACE_ONE"):
        epsilon(event=batch(5, 1.0), delta=1e-5)


def test_a_batch_larger_than_the_dataset_is_refused():
    """101 of 100 units cannot be drawn."""
    with pytest.raises(ValueError, match="sample_size=101"):
        batch(101, 1.0)
