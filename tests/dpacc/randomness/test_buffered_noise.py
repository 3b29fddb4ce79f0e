"""Noise from buffers: its law is that of C⁻¹z, and it is drawn in order."""

from __future__ import annotations

import numpy as np
import pytest
from dpacc_accounting.factorization.buffered import ToeplitzColumn
from scipy import stats

from dpacc.errors import PrivacyError
from dpacc.randomness.buffered_noise import BufferedNoise
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret

COLUMN = ToeplitzColumn(coefficients=(0.7,), weights=(0.4, 0.2), decays=(0.9, 0.3))
ROUNDS = 8


def noise(seed: int) -> BufferedNoise:
    return BufferedNoise(
        secret=RunSecret.from_fixed_seed(seed),
        first=COLUMN.coefficients[0],
        weights=COLUMN.weights,
        decays=COLUMN.decays,
    )


def rows(seed: int, *, count: int, first: int = 0) -> np.ndarray:
    drawn = noise(seed)
    return np.stack([drawn.row(step=first + t, count=count) for t in range(ROUNDS)]).astype(float)


def strategy() -> np.ndarray:
    at = np.subtract.outer(np.arange(ROUNDS), np.arange(ROUNDS))
    return np.where(at >= 0, COLUMN.series(ROUNDS)[np.maximum(at, 0)], 0.0)


def test_its_covariance_is_that_of_the_inverse() -> None:
    """Chi-square over 200 keys: C times the rows is white of variance 1."""
    released = np.concatenate([rows(seed, count=50) for seed in range(200)], axis=1)
    seen = strategy() @ released
    surprise = stats.chi2(seen.size).cdf(np.square(seen).sum())
    assert 1e-4 < surprise < 1 - 1e-4
    error = 5 / np.sqrt(seen.shape[1])
    assert np.abs(seen @ seen.T / seen.shape[1] - np.eye(ROUNDS)).max() < error
    due = np.linalg.inv(strategy().T @ strategy())
    assert np.abs(released @ released.T / seen.shape[1] - due).max() < error * due.max()
    assert due.max() > 2


@pytest.mark.parametrize("first", [0, 12])
def test_it_takes_back_what_earlier_rounds_added(first: int) -> None:
    """C times the rows is z itself, from whatever round a secret's first one is."""
    secret = RunSecret.from_fixed_seed(1)
    drawn = np.stack(
        [standard_normals(secret=secret, step=first + t, count=9) for t in range(ROUNDS)]
    )
    assert np.abs(strategy() @ rows(1, count=9, first=first) - drawn).max() < 2e-6


def test_a_row_may_be_scaled_by_who_gets_it() -> None:
    """Later rows come from what was drawn, not from what became of it."""
    drawn = noise(3)
    first = drawn.row(step=0, count=4)
    first *= 1000
    assert (drawn.row(step=1, count=4) == rows(3, count=4)[1]).all()


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_step_out_of_order_is_refused(step: int) -> None:
    """Its row needs those before it, which are not kept."""
    drawn = noise(4)
    for known in (0, 1):
        drawn.row(step=known, count=4)
    with pytest.raises(PrivacyError, match=f"step {step} was asked for where that of step 2"):
        drawn.row(step=step, count=4)
