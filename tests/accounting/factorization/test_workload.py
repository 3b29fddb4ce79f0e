"""The noise that a workload leaves, against matrices written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dpacc_accounting import Workload
from dpacc_accounting.factorization.banded import inverse_series
from dpacc_accounting.factorization.workload import NoiseTable

RATES = (0.3, 0.6, 1.0, 1.0, 0.7, 0.4, 0.1)


def written_out(workload: Workload, inverse: np.ndarray) -> float:
    """By the matrices: momentum, learning rates, prefix sums, and the mean of the last iterates."""
    steps = workload.steps
    at = np.subtract.outer(np.arange(steps), np.arange(steps))
    lower = at >= 0
    momentum = np.where(lower, workload.momentum ** np.maximum(at, 0).astype(float), 0.0)
    iterates = lower.astype(float) @ np.diag(workload.learning_rates) @ momentum
    noise = np.where(lower, inverse[np.maximum(at, 0)], 0.0)
    terms = [np.square(iterates @ noise).sum() / np.square(iterates).sum()]
    if tail := math.ceil(workload.averaged * steps):
        mean = iterates[-tail:].mean(axis=0)
        terms.append(np.square(mean @ noise).sum() / np.square(mean).sum())
    return float(np.mean(terms))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("averaged", [0.0, 0.5])
def test_it_is_what_the_matrices_say(momentum: float, averaged: float) -> None:
    """Learning rates that warm up and decay, momentum, and a mean of iterates."""
    workload = Workload(learning_rates=RATES, momentum=momentum, averaged=averaged)
    column = np.zeros(len(RATES))
    column[:3] = 0.8, 0.5, 0.2
    inverse = inverse_series(column)
    found = NoiseTable(workload).mean_square(inverse)
    assert found == pytest.approx(written_out(workload, inverse), rel=1e-12)


@pytest.mark.parametrize("averaged", [0.0, 0.5])
def test_its_gradient_is_that_of_small_differences(averaged: float) -> None:
    """In every coefficient of the inverse."""
    table = NoiseTable(Workload(learning_rates=RATES, momentum=0.5, averaged=averaged))
    inverse = np.random.default_rng(0).normal(size=len(RATES))
    value, slope = table.gradient(inverse)
    assert value == table.mean_square(inverse)
    for at in range(len(RATES)):
        nudge = np.zeros(len(RATES))
        nudge[at] = 1e-6
        rise = table.mean_square(inverse + nudge) - table.mean_square(inverse - nudge)
        assert slope[at] == pytest.approx(rise / 2e-6, rel=1e-6, abs=1e-9)


def test_a_long_run_is_told_from_some_of_its_steps() -> None:
    """Of 1,500 steps every ninth column stands for its neighbours, to a percent."""
    column = np.zeros(1500)
    column[:4] = 0.7, 0.4, 0.3, 0.2
    inverse = inverse_series(column)
    found = NoiseTable(Workload.constant(steps=1500)).mean_square(inverse)
    assert found == pytest.approx(written_out(Workload.constant(steps=1500), inverse), rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"learning_rates": ()}, "learning_rates"),
        ({"learning_rates": (0.0, 0.0)}, "learning_rates"),
        ({"learning_rates": (1.0, math.nan)}, "learning_rates"),
        ({"learning_rates": (1.0,), "momentum": 1.0}, "momentum"),
        ({"learning_rates": (1.0,), "averaged": 1.5}, "averaged"),
    ],
)
def test_what_is_no_workload_is_refused(wrong: dict[str, object], told: str) -> None:
    """By the name of the field."""
    with pytest.raises(ValueError, match=told):
        Workload(**wrong)  # type: ignore[arg-type]
