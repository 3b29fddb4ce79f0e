"""A run's noise over the most that its data could say, beside draws of both."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import Phase

from dpacc.plan import PrivacyPlan
from dpacc.planning.noise_over_signal import DROWNED, drowned, noise_over_signal

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


def test_it_is_said_where_noise_drowns_all() -> None:
    """Beyond the mark, in the table, before the first step; never where correlation takes back."""
    few = replace(PLAN, dataset_size=60, expected_batch_size=2)
    mark = DROWNED / noise_over_signal(plan=few, trainable=1)
    assert drowned(plan=few, trainable=int((0.9 * mark) ** 2)) == ""
    assert "more records" in drowned(plan=few, trainable=int((1.1 * mark) ** 2))
    turns: dict[str, Any] = {"sampling": "cyclic-poisson", "noise_coefficients": (0.8, 0.6)}
    assert drowned(plan=replace(few, **turns), trainable=10**9) == ""


def test_the_page_has_what_the_mark_was_taken_from() -> None:
    """docs/plan.md: one run above it, one below."""
    page = (Path(__file__).parents[3] / "docs/plan.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| 183\.9 \| ([\d.]+) \|$", page, re.MULTILINE)
    assert [float(row[1]) > DROWNED for row in rows] == [True, False]
    assert float(rows[0][2]) > float(rows[1][2])
