"""Buffers: admissible, none near them is better, and a few vectors make the same noise as C⁻¹."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from dpacc_accounting import Workload
from dpacc_accounting.factorization.buffered import (
    ToeplitzColumn,
    optimal_buffers,
    separated_bands,
)

COURSE = Workload.constant(steps=40)
MOMENTUM = Workload.constant(steps=40, momentum=0.9)


def test_a_column_is_written_out() -> None:
    """Bands as they are; buffers as geometric series from the second number on."""
    assert ToeplitzColumn(coefficients=(0.8, 0.6)).series(4).tolist() == [0.8, 0.6, 0.0, 0.0]
    buffers = ToeplitzColumn(coefficients=(1.0,), weights=(0.5, 0.25), decays=(0.5, 0.0))
    assert buffers.series(4).tolist() == [1.0, 0.75, 0.25, 0.125]
    assert (buffers.kept, ToeplitzColumn(coefficients=(0.8, 0.6)).kept) == (2, 1)


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("workload", [COURSE, MOMENTUM], ids=["plain", "momentum"])
def test_no_buffers_nearby_are_better(workload: Workload, buffers: int) -> None:
    """Of norm at most 1; none of a hundred neighbours leaves less, but for rounding."""
    found = optimal_buffers(workload=workload, separation=8, buffers=buffers)
    assert 0.999 < np.linalg.norm(found.series(40)) <= 1.00001
    least = found.relative_error(workload=workload, separation=8)
    rng = np.random.default_rng(0)
    for _ in range(100):
        weights = np.abs(np.array(found.weights) + 0.03 * rng.normal(size=buffers))
        decays = np.clip(np.array(found.decays) + 0.03 * rng.normal(size=buffers), 0, 0.999)
        other = ToeplitzColumn(
            coefficients=(max(found.coefficients[0], weights.sum()),),
            weights=tuple(weights.tolist()),
            decays=tuple(decays.tolist()),
        )
        assert other.relative_error(workload=workload, separation=8) > least - 1e-5


def test_what_they_leave_beside_bands_and_independent_noise() -> None:
    """50 rounds, 10 apart: bands 0.466 of independent noise at the same price, a buffer 0.491."""
    workload = Workload.constant(steps=50)
    bands = separated_bands(workload=workload, separation=10)
    assert bands.relative_error(workload=workload, separation=10) == pytest.approx(0.466, abs=5e-4)
    assert bands.kept == 9
    one = optimal_buffers(workload=workload, separation=10, buffers=1)
    assert one.relative_error(workload=workload, separation=10) == pytest.approx(0.491, abs=5e-4)
    assert one.kept == 1


@pytest.mark.parametrize("workload", [COURSE, MOMENTUM], ids=["plain", "momentum"])
def test_where_everybody_is_in_every_round_correlation_gains_nothing(workload: Workload) -> None:
    """b = 1: independent noise is what is found, and every column tried leaves more."""
    found = optimal_buffers(workload=workload, separation=1)
    assert found.relative_error(workload=workload, separation=1) == pytest.approx(1.0, abs=1e-3)
    assert separated_bands(workload=workload, separation=1).coefficients == (1.0,)
    for weight, decay in [(0.01, 0.0), (0.1, 0.5), (0.5, 0.5), (0.3, 0.9), (0.02, 0.98)]:
        other = ToeplitzColumn(coefficients=(1.0,), weights=(weight,), decays=(decay,))
        assert other.relative_error(workload=workload, separation=1) > 1


def test_a_column_that_would_increase_is_cut() -> None:
    """Whatever the workload: each number is at most the one before, and none is below 0."""
    rates = tuple(1.0 if t % 4 == 0 else 0.01 for t in range(40))
    for workload in (Workload(learning_rates=rates), MOMENTUM):
        column = separated_bands(workload=workload, separation=8).coefficients
        assert all(a >= b >= 0 for a, b in pairwise(column))
        assert np.linalg.norm(column) <= 1
