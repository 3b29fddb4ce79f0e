"""Accounting as it goes, and σ for a sample rate alone."""

import pytest
from dpacc_accounting import (
    Accountant,
    Adjacency,
    Gaussian,
    Laplace,
    PoissonSampled,
    Repeated,
    calibrate_noise,
    epsilon,
    get_noise_multiplier,
    noise_at_rate,
)

STEP = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_steps_told_one_by_one_cost_what_their_event_costs(adjacency, method):
    """A thousand calls are a thousand releases, priced by the method and adjacency asked for."""
    accountant = Accountant(adjacency=adjacency, method=method, unit="patient")
    for _ in range(1000):
        accountant.step(noise_multiplier=1.0, sample_rate=0.01)
    found = accountant.guarantee(delta=1e-5)
    event = Repeated(event=STEP, times=1000)
    assert found == epsilon(
        event=event, delta=1e-5, adjacency=adjacency, method=method, unit="patient"
    )
    assert accountant.get_epsilon(1e-5) == found.epsilon
    assert accountant.get_delta(found.epsilon) <= 1e-5 * (1 + 1e-6)
    assert len(accountant) == 1000


def test_any_event_may_stand_beside_the_steps():
    """Other mechanisms add to ε; nothing released costs nothing; nonsense is not counted."""
    accountant = Accountant()
    assert accountant.get_epsilon(1e-5) == 0.0
    accountant.compose(event=STEP, times=500)
    before = accountant.get_epsilon(1e-5)
    accountant.compose(event=Laplace(noise_multiplier=2.0))
    assert accountant.get_epsilon(1e-5) > before
    with pytest.raises(ValueError, match="probability"):
        accountant.step(noise_multiplier=1.0, sample_rate=1.5)
    with pytest.raises(ValueError, match="times"):
        accountant.compose(event=STEP, times=-1)
    assert len(accountant) == 501


def test_a_sample_rate_alone_needs_the_noise_that_its_sizes_need():
    """256 of 67,349 for three epochs: the same σ and steps, by sizes and by rate."""
    sized = calibrate_noise(dataset_size=67_349, batch_size=256, epochs=3, epsilon=8.0, delta=1e-5)
    rated = noise_at_rate(sample_rate=256 / 67_349, epochs=3, epsilon=8.0, delta=1e-5)
    assert rated == sized
    alone = get_noise_multiplier(
        target_epsilon=8.0, target_delta=1e-5, sample_rate=256 / 67_349, steps=790
    )
    assert alone == sized.noise_multiplier


@pytest.mark.parametrize("rate", [0.0, 1.5, float("nan"), "0.1"])
def test_a_rate_that_is_no_chance_is_refused(rate):
    """The error names the value."""
    with pytest.raises(ValueError, match="sample_rate"):
        noise_at_rate(sample_rate=rate, epochs=1, epsilon=1.0, delta=1e-5)
