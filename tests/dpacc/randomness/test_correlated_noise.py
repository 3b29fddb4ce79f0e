"""Correlated noise: its law is that of C⁻¹z, whoever draws it, and it is drawn in order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpacc.errors import PrivacyError
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret

COLUMN = (0.75, 0.5, 0.3)
STEPS = 6


def rows(seed: int, *, count: int, threads: int = 1, first: int = 0) -> np.ndarray:
    noise = CorrelatedNoise(secret=RunSecret.from_fixed_seed(seed), coefficients=COLUMN)
    drawn = [noise.row(step=first + t, count=count, threads=threads) for t in range(STEPS)]
    return np.stack(drawn).astype(np.float64)


def strategy() -> np.ndarray:
    at = np.subtract.outer(np.arange(STEPS), np.arange(STEPS))
    column = np.zeros(STEPS)
    column[: len(COLUMN)] = COLUMN
    return np.where(at >= 0, column[np.maximum(at, 0)], 0.0)


def test_its_covariance_is_that_of_the_inverse() -> None:
    """Chi-square over 200 keys: C times the rows is white of variance 1, in scale and direction."""
    released = np.concatenate([rows(seed, count=50) for seed in range(200)], axis=1)
    seen = strategy() @ released
    surprise = stats.chi2(seen.size).cdf(np.square(seen).sum())
    assert 1e-4 < surprise < 1 - 1e-4
    covariance = seen @ seen.T / seen.shape[1]
    error = 5 / np.sqrt(seen.shape[1])
    assert np.abs(covariance - np.eye(STEPS)).max() < error
    due = np.linalg.inv(strategy().T @ strategy())
    assert np.abs(released @ released.T / seen.shape[1] - due).max() < error * due.max()
    assert due.max() > 2


@pytest.mark.parametrize("first", [0, 12])
def test_it_takes_back_what_earlier_steps_added(first: int) -> None:
    """C times the rows is z itself, from whatever step a secret's first one is."""
    secret = RunSecret.from_fixed_seed(1)
    drawn = np.stack([standard_normals(secret=secret, step=first + t, count=9) for t in range(6)])
    assert np.abs(strategy() @ rows(1, count=9, first=first) - drawn).max() < 2e-6


def test_threads_and_numbers_change_nothing() -> None:
    """An element depends on the secret and its place alone, over several chunks."""
    many = rows(2, count=600_000, threads=3)
    assert (many == rows(2, count=600_000, threads=1)).all()
    assert (many[:, :4] == rows(2, count=4)).all()


def test_a_row_may_be_scaled_by_who_gets_it() -> None:
    """Later rows come from what was drawn, not from what became of it; the last is given again."""
    noise = CorrelatedNoise(secret=RunSecret.from_fixed_seed(3), coefficients=COLUMN)
    first = noise.row(step=0, count=4)
    first *= 1000
    assert (noise.row(step=0, count=4) * 1000 == first).all()
    assert (noise.row(step=1, count=4) == rows(3, count=4)[1]).all()


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_out_of_order_is_refused(step: int) -> None:
    """Its row needs those before it, which are not kept or were never drawn."""
    noise = CorrelatedNoise(secret=RunSecret.from_fixed_seed(4), coefficients=COLUMN)
    for known in (0, 1):
        noise.row(step=known, count=4)
    with pytest.raises(PrivacyError, match=f"step {step} was asked for after that of step 1"):
        noise.row(step=step, count=4)


def test_one_coefficient_is_independent_noise() -> None:
    """c = (1,): the numbers of every plan before, in any order."""
    secret = RunSecret.from_fixed_seed(5)
    noise = CorrelatedNoise(secret=secret, coefficients=(1.0,))
    for step in (4, 0, 4):
        assert (
            noise.row(step=step, count=7) == standard_normals(secret=secret, step=step, count=7)
        ).all()
