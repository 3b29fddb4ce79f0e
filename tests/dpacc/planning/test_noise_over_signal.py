"""A run's noise over the most that its data could say, beside draws of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dpacc_accounting import Phase

from dpacc.plan import PrivacyPlan
from dpacc.planning.noise_over_signal import noise_over_signal

PLAN = PrivacyPlan(
    dataset_size=2000,
    expected_batch_size=20,
    steps=30,
    noise_multiplier=1.5,
    max_grad_norm=0.5,
    target_delta=1e-4,
)


def test_it_is_the_length_of_the_noise_that_is_drawn() -> None:
    """The mean of T noised mean gradients, over C, in d elements: to three errors of a draw."""
    rng, width = np.random.default_rng(0), 4000
    scale = PLAN.noise_multiplier * PLAN.max_grad_norm / PLAN.expected_batch_size
    noise = rng.normal(scale=scale, size=(PLAN.steps, width)).mean(axis=0)
    drawn = float(np.linalg.norm(noise)) / PLAN.max_grad_norm
    known = noise_over_signal(plan=PLAN, trainable=width)
    assert drawn == pytest.approx(known, rel=3 / np.sqrt(2 * width))
    assert noise_over_signal(plan=PLAN, trainable=width, correlation=0.5) == known / 2


def test_phases_count_by_their_steps() -> None:
    """Two of the same noise are one run; of a second one with hardly any, half the square."""

    def of(second: float) -> float:
        phases = tuple(
            Phase(steps=15, expected_batch_size=20, noise_multiplier=sigma)
            for sigma in (PLAN.noise_multiplier, second)
        )
        return noise_over_signal(plan=replace(PLAN, phases=phases), trainable=9)

    one = noise_over_signal(plan=PLAN, trainable=9)
    assert of(PLAN.noise_multiplier) == pytest.approx(one)
    assert of(1e-9) == pytest.approx(one / 2**0.5)
