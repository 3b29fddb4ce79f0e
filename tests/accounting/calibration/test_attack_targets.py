"""Noise calibrated to an attack's success keeps it there, and barely."""

import re

import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.attacks.best_attack import attack_advantage, true_positive_rate
from dpacc_accounting.calibration.attack_targets import (
    calibrate_noise_to_advantage,
    calibrate_noise_to_detection,
)
from dpacc_accounting.calibration.training_runs import training
from scipy.stats import norm

RUNS = [
    {"dataset_size": 67_349, "batch_size": 256, "epochs": 3},
    {"dataset_size": 1000, "batch_size": 100, "steps": 7},
    {"dataset_size": 300, "batch_size": 300, "steps": 5},
]


@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("advantage", [0.02, 0.3])
def test_the_advantage_is_reached_and_not_exceeded(run, advantage, adjacency):
    """δ(0) of the plan is at most the target, and 0.1% less noise exceeds it."""
    plan = calibrate_noise_to_advantage(**run, advantage=advantage, adjacency=adjacency)
    again = attack_advantage(event=plan.event, adjacency=adjacency)
    assert plan.guarantee.delta == again <= advantage
    assert plan.guarantee.epsilon == 0
    assert plan.guarantee.adjacency is adjacency
    less = training(
        rate=plan.sample_rate, noise_multiplier=0.999 * plan.noise_multiplier, steps=plan.steps
    )
    assert attack_advantage(event=less, adjacency=adjacency) > advantage


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("caught", "alarms"), [(0.05, 0.01), (0.3, 0.1), (0.97, 0.6)])
def test_the_detection_is_reached_and_not_exceeded(run, caught, alarms):
    """The true-positive rate at α is at most the target, and 1% less noise exceeds it."""
    plan = calibrate_noise_to_detection(**run, true_positives=caught, false_positives=alarms)
    found = true_positive_rate(event=plan.event, false_positives=alarms)
    assert found <= caught * (1 + 1e-4)
    less = training(
        rate=plan.sample_rate, noise_multiplier=0.99 * plan.noise_multiplier, steps=plan.steps
    )
    assert true_positive_rate(event=less, false_positives=alarms) > caught


@pytest.mark.parametrize(("caught", "alarms"), [(0.05, 0.01), (0.3, 0.1), (0.97, 0.6)])
def test_unsampled_noise_is_the_closed_form(caught, alarms):
    """One Gaussian needs σ = 1/(Φ⁻¹(τ) − Φ⁻¹(α)): never less, and 0.2% more at most."""
    plan = calibrate_noise_to_detection(
        dataset_size=10, batch_size=10, steps=1, true_positives=caught, false_positives=alarms
    )
    exact = 1 / (norm.ppf(caught) - norm.ppf(alarms))
    assert exact <= plan.noise_multiplier <= 1.002 * exact


@pytest.mark.parametrize(
    ("solve", "change", "culprits"),
    [
        (calibrate_noise_to_advantage, {"advantage": 0.0}, ["advantage=0.0"]),
        (calibrate_noise_to_advantage, {"advantage": 1.2}, ["advantage=1.2"]),
        (calibrate_noise_to_advantage, {"advantage": 0.99}, ["0.99", "no noise"]),
        (
            calibrate_noise_to_detection,
            {"true_positives": 0.1, "false_positives": 0.2},
            ["true_positives=0.1", "false_positives=0.2", "allow more"],
        ),
        (
            calibrate_noise_to_detection,
            {"true_positives": 1.0, "false_positives": 0.2},
            ["true_positives=1.0"],
        ),
    ],
)
def test_impossible_targets_are_refused_in_one_line(solve, change, culprits):
    """A target that guessing reaches, or that needs no noise, is named with its values."""
    with pytest.raises(ValueError, match=re.escape(culprits[0])) as caught:
        solve(dataset_size=67_349, batch_size=256, epochs=3, **change)
    assert "\n" not in str(caught.value)
    for culprit in culprits:
        assert culprit in str(caught.value)
