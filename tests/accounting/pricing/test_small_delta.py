"""A δ that promises nothing to N units is refused, and a large one is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from dpacc_accounting import (
    calibrate_batch_size,
    calibrate_delta,
    calibrate_epsilon,
    calibrate_noise,
    calibrate_noise_to_advantage,
    calibrate_steps,
)
from dpacc_accounting.pricing.small_delta import PrivacyWarning, require_small_delta, small_delta

RUN: dict[str, Any] = {"dataset_size": 1000, "batch_size": 100}
SOLVERS: list[Callable[[float], Any]] = [
    lambda delta: calibrate_noise(**RUN, steps=5, epsilon=8.0, delta=delta),
    lambda delta: calibrate_steps(**RUN, noise_multiplier=2.0, epsilon=8.0, delta=delta),
    lambda delta: calibrate_epsilon(**RUN, noise_multiplier=2.0, steps=5, delta=delta),
    lambda delta: calibrate_batch_size(
        dataset_size=1000, noise_multiplier=2.0, steps=5, epsilon=1.0, delta=delta
    ),
]


@pytest.mark.parametrize("solve", SOLVERS)
def test_every_solver_refuses_one_in_n_and_warns_above_what_n_asks(
    solve: Callable[[float], Any],
) -> None:
    """With N = 1000, δ = 0.1 and 0.001 are refused, 0.0008 is taken with a warning, 1e-5 silently.

    At δ = 1/N, publishing one row drawn at random is (0, δ)-private.
    """
    for delta in (0.1, 1e-3):
        with pytest.raises(ValueError, match=r"no less than 1/1000.*such as 0\.000501"):
            solve(delta)
    with pytest.warns(PrivacyWarning, match=r"more than 0\.000501, which 1000 examples ask for"):
        solve(8e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(1e-5)


def test_what_an_attack_gains_may_be_more() -> None:
    """An advantage is a δ at ε = 0, and no promise of safety with probability 1 − δ."""
    found = calibrate_noise_to_advantage(**RUN, steps=5, advantage=0.01)
    assert found.guarantee.delta == pytest.approx(0.01, rel=1e-4)
    assert calibrate_delta(**RUN, noise_multiplier=1.0, steps=5, epsilon=0.1).guarantee.delta > 1e-3


@pytest.mark.parametrize(("size", "asked"), [(1, 1e-3), (15, 1e-3), (1000, 1000**-1.1)])
def test_small_datasets_ask_for_one_in_a_thousand(size: int, asked: float) -> None:
    """N^-1.1 of 15 customers would be 0.05: a failure for one of twenty."""
    assert small_delta(dataset_size=size) == asked
    require_small_delta(delta=asked, dataset_size=size)
