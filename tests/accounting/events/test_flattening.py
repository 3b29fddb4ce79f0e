import pytest
from dpacc_accounting import Composed, Gaussian, PoissonSampled, Repeated
from dpacc_accounting.events.flattening import Release, releases


def sampled(probability: float, sigma: float) -> PoissonSampled:
    """One Poisson-sampled Gaussian."""
    return PoissonSampled(probability=probability, event=Gaussian(noise_multiplier=sigma))


def test_nested_repetitions_multiply_and_equal_releases_add():
    """3 times (2 times A, then B) is 6 releases of A and 3 of B, wherever A stands."""
    inner = Composed(events=(Repeated(event=sampled(0.1, 1.0), times=2), sampled(0.2, 1.0)))
    counts = releases(event=Repeated(event=inner, times=3))
    assert counts == {Release(0.1, 1.0): 6, Release(0.2, 1.0): 3}


def test_what_never_happens_costs_nothing():
    """Zero repetitions, zero probability and an empty composition are no release at all."""
    never = Composed(events=(Repeated(event=sampled(0.1, 1.0), times=0), sampled(0.0, 0.0)))
    assert releases(event=never) == {}


def test_unsampled_gaussians_are_one_gaussian():
    """Precisions add: σ = 3 and σ = 4 together are σ = 2.4, and are sampled as one release."""
    both = Composed(events=(Gaussian(noise_multiplier=3.0), Gaussian(noise_multiplier=4.0)))
    (whole,) = releases(event=both)
    assert whole.noise_multiplier == pytest.approx(2.4, rel=1e-14)
    (together,) = releases(event=PoissonSampled(probability=0.5, event=both))
    assert together == Release(0.5, whole.noise_multiplier)


def test_one_noiseless_release_leaves_the_joint_one_noiseless():
    """σ = 0 beside other Gaussians is σ = 0."""
    both = Composed(events=(Gaussian(noise_multiplier=0.0), Gaussian(noise_multiplier=4.0)))
    assert releases(event=both) == {Release(1.0, 0.0): 1}


def test_probabilities_of_nested_samples_multiply():
    """A sample of a sample of one release joins with the product of the probabilities."""
    nested = PoissonSampled(probability=0.5, event=sampled(0.5, 1.0))
    assert releases(event=nested) == {Release(0.25, 1.0): 1}


def test_one_coin_around_several_sampled_releases_is_refused():
    """Rates may not be multiplied where several releases share one coin: that is an error."""
    with pytest.raises(ValueError, match="sample each release on its own"):
        releases(
            event=PoissonSampled(probability=0.5, event=Repeated(event=sampled(0.5, 1.0), times=2))
        )
