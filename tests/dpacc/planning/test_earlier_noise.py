"""What is planned for correlated noise is what a release of a real run holds."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from dpacc.plan import PrivacyPlan
from dpacc.planning.earlier_noise import row_bytes, rows_kept
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.run_secret import RunSecret

WIDTH = 300_000
PLAN = PrivacyPlan(
    dataset_size=1000,
    expected_batch_size=10,
    steps=20,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
)


@pytest.mark.parametrize("bands", [2, 4, 7])
def test_the_rows_that_a_run_keeps_are_counted(bands: int) -> None:
    """Bytes still allocated once the first cycle is over, with the last step's copy in hand."""
    plan = replace(
        PLAN, noise_coefficients=(bands**-0.5 * 0.99,) * bands, sampling="cyclic-poisson"
    )
    noise = CorrelatedNoise(
        secret=RunSecret.from_fixed_seed(0), coefficients=plan.noise_coefficients
    )
    noise.row(step=0, count=1)  # what is loaded once is no part of a row
    noise = CorrelatedNoise(
        secret=RunSecret.from_fixed_seed(0), coefficients=plan.noise_coefficients
    )
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    copies = [noise.row(step=step, count=WIDTH) for step in range(bands + 3)][-1:]
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    planned = row_bytes(plan=plan, trainable=WIDTH) * (rows_kept(bands=plan.bands) + len(copies))
    assert held == pytest.approx(planned, rel=0.02)


def test_the_noise_of_a_count_is_a_number_more() -> None:
    """Adaptive clipping noises how many norms lie below its bound."""
    plan = replace(PLAN, clipping="adaptive")
    assert row_bytes(plan=plan, trainable=10) == row_bytes(plan=PLAN, trainable=10) + 4 == 44
