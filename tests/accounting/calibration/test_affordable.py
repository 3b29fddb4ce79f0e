"""What a given noise affords: each answer was priced, is within budget, and the next is not."""

import math
import re

import pytest
from dpacc_accounting import calibrate_noise, delta, epsilon
from dpacc_accounting.calibration.affordable import (
    calibrate_batch_size,
    calibrate_delta,
    calibrate_epochs,
    calibrate_epsilon,
    calibrate_steps,
)
from dpacc_accounting.calibration.training_runs import training

from tests.accounting.work import counted_work

BUDGET = {"epsilon": 8.0, "delta": 1e-5}
SETTINGS = [(67_349, 256, 0.5), (9_481, 96, 1.0), (1000, 1000, 5.0), (99_999, 20, 0.4)]


@pytest.mark.parametrize("adjacency", ["add-or-remove", "replace-one"])
@pytest.mark.parametrize(("size", "batch", "sigma"), SETTINGS)
def test_one_step_more_is_too_many(size, batch, sigma, adjacency):
    """T steps cost at most ε and T + 1 steps cost more; the guarantee is that of T steps."""
    plan = calibrate_steps(
        dataset_size=size,
        batch_size=batch,
        noise_multiplier=sigma,
        adjacency=adjacency,
        **BUDGET,
    )
    assert plan.guarantee == epsilon(event=plan.event, delta=1e-5, adjacency=adjacency)
    assert plan.guarantee.epsilon <= 8.0
    assert plan.event.times == plan.steps
    more = training(rate=plan.sample_rate, noise_multiplier=sigma, steps=plan.steps + 1)
    assert epsilon(event=more, delta=1e-5, adjacency=adjacency).epsilon > 8.0


def test_unsampled_steps_are_those_of_the_closed_form():
    """T Gaussians are μ = √T/σ, so that T = ⌊(μσ)²⌋ for μ(ε, δ)."""
    from dpacc_accounting.gaussian import gaussian_mu

    plan = calibrate_steps(dataset_size=50, batch_size=50, noise_multiplier=7.3, **BUDGET)
    assert plan.steps == math.floor((gaussian_mu(**BUDGET) * 7.3) ** 2)


@pytest.mark.parametrize(("size", "batch", "steps"), [(67_349, 256, 789), (10_000, 100, 40)])
def test_steps_undo_the_noise(size, batch, steps):
    """The noise calibrated for T steps affords T steps, or one more where it was rounded up."""
    noise = calibrate_noise(dataset_size=size, batch_size=batch, steps=steps, **BUDGET)
    plan = calibrate_steps(
        dataset_size=size, batch_size=batch, noise_multiplier=noise.noise_multiplier, **BUDGET
    )
    assert plan.steps in (steps, steps + 1)


def test_epochs_are_whole_and_the_next_does_not_fit():
    """E epochs are ⌈E·N/B⌉ steps within the budget; E + 1 epochs exceed it."""
    size, batch, sigma = 67_349, 1000, 0.6
    plan = calibrate_epochs(dataset_size=size, batch_size=batch, noise_multiplier=sigma, **BUDGET)
    epochs = plan.steps * batch // size
    assert plan.steps == math.ceil(epochs * size / batch)
    assert plan.guarantee.epsilon <= 8.0
    more = calibrate_epsilon(
        dataset_size=size,
        batch_size=batch,
        noise_multiplier=sigma,
        epochs=epochs + 1,
        delta=1e-5,
    )
    assert more.guarantee.epsilon > 8.0


@pytest.mark.parametrize("length", [{"steps": 789}, {"epochs": 3}, {"epochs": 0.5}])
def test_one_more_in_the_batch_is_too_many(length):
    """B costs at most ε and B + 1 costs more, for a fixed number of steps or of epochs."""
    fixed = {"dataset_size": 67_349, "noise_multiplier": 0.6, **length}
    plan = calibrate_batch_size(**fixed, **BUDGET)
    batch = round(plan.sample_rate * 67_349)
    assert plan.sample_rate == batch / 67_349
    again = calibrate_epsilon(**fixed, batch_size=batch, delta=1e-5)
    assert again == plan
    assert plan.guarantee.epsilon <= 8.0
    assert calibrate_epsilon(**fixed, batch_size=batch + 1, delta=1e-5).guarantee.epsilon > 8.0


def test_a_noise_that_hides_everything_affords_whole_batches():
    """With σ = 100 for ten steps, every unit may take part in every step."""
    plan = calibrate_batch_size(dataset_size=500, noise_multiplier=100.0, steps=10, **BUDGET)
    assert plan.sample_rate == 1.0


def test_epsilon_and_delta_are_plain_prices():
    """`calibrate_epsilon` and `calibrate_delta` describe the run and return its price."""
    fixed = {"dataset_size": 1000, "batch_size": 10, "noise_multiplier": 0.8, "epochs": 2}
    by_delta = calibrate_epsilon(**fixed, delta=1e-5, unit="patient")
    assert by_delta.steps == 200
    assert by_delta.guarantee == epsilon(event=by_delta.event, delta=1e-5, unit="patient")
    by_epsilon = calibrate_delta(**fixed, epsilon=0.0)
    assert by_epsilon.guarantee == delta(event=by_epsilon.event, epsilon=0.0)
    assert by_epsilon.guarantee.delta == pytest.approx(0.4, abs=0.35)


@pytest.mark.parametrize(
    ("call", "culprits"),
    [
        (
            lambda: calibrate_steps(
                dataset_size=100, batch_size=100, noise_multiplier=0.1, **BUDGET
            ),
            ["epsilon=8.0", "noise_multiplier=0.1", "raise the noise"],
        ),
        (
            lambda: calibrate_epochs(
                dataset_size=10_000, batch_size=1000, noise_multiplier=0.5, **BUDGET
            ),
            ["epsilon=8.0", "steps", "10 of one epoch", "calibrate_steps"],
        ),
        (
            lambda: calibrate_batch_size(
                dataset_size=10, noise_multiplier=0.1, steps=1000, **BUDGET
            ),
            ["epsilon=8.0", "batch_size=1", "noise_multiplier=0.1"],
        ),
        (
            lambda: calibrate_steps(
                dataset_size=10**9, batch_size=1, noise_multiplier=50.0, epsilon=8.0, delta=1e-10
            ),
            ["1e+12 steps", "lower the noise"],
        ),
        (
            lambda: calibrate_epsilon(
                dataset_size=10, batch_size=1, noise_multiplier=0.0, steps=1, delta=1e-5
            ),
            ["noise_multiplier=0.0"],
        ),
        (
            lambda: calibrate_delta(
                dataset_size=10, batch_size=20, noise_multiplier=1.0, steps=1, epsilon=1.0
            ),
            ["batch_size=20", "dataset_size=10"],
        ),
    ],
)
def test_what_cannot_be_afforded_is_said_in_one_line(call, culprits):
    """Every refusal names both values and the remedy, after a bounded search."""
    with (
        counted_work() as work,
        pytest.raises(ValueError, match=re.escape(culprits[0])) as caught,
    ):
        call()
    assert "\n" not in str(caught.value)
    for culprit in culprits:
        assert culprit in str(caught.value)
    assert work.points < 200_000_000
