"""Banded coefficients: admissible, and none near them leaves less noise."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from dpacc_accounting import Workload
from dpacc_accounting.factorization.banded import (
    inverse_series,
    largest_step_noise,
    optimal_coefficients,
    relative_error,
)

COURSES = {
    "constant": Workload.constant(steps=60),
    "momentum and a mean": Workload.constant(steps=60, momentum=0.9, averaged=0.5),
    "decaying": Workload(learning_rates=tuple(np.linspace(1.0, 0.02, 60)), momentum=0.9),
}


@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("bands", [2, 5, 16])
def test_no_coefficients_nearby_are_better(name: str, bands: int) -> None:
    """Of norm at most 1 in exact arithmetic; a hundred neighbours of the same norm leave more."""
    workload = COURSES[name]
    column = optimal_coefficients(workload=workload, bands=bands)
    assert len(column) == bands
    assert column[0] > 0
    assert 0.999 < float(sum(Fraction(c) ** 2 for c in column)) <= 1
    least = relative_error(workload=workload, coefficients=column)
    rng = np.random.default_rng(0)
    for _ in range(100):
        other = np.array(column) + 0.02 * rng.normal(size=bands)
        other *= np.linalg.norm(column) / np.linalg.norm(other)
        assert relative_error(workload=workload, coefficients=other.tolist()) > least


@pytest.mark.parametrize("name", COURSES)
def test_more_bands_leave_less(name: str) -> None:
    """At equal σ, which they do not have: each doubling widens what can be chosen from."""
    errors = [
        relative_error(
            workload=COURSES[name],
            coefficients=optimal_coefficients(workload=COURSES[name], bands=bands),
        )
        for bands in (1, 2, 4, 8, 16, 32)
    ]
    assert errors[0] == 1.0
    assert errors == sorted(errors, reverse=True)


def test_one_band_is_independent_noise() -> None:
    """c = (1,), and so is what has more bands than steps cut to the steps."""
    assert optimal_coefficients(workload=COURSES["constant"], bands=1) == (1.0,)
    assert len(optimal_coefficients(workload=Workload.constant(steps=3), bands=8)) == 3


def test_unbanded_they_come_near_the_best_factorisation_known() -> None:
    """With as many bands as steps: the root of the prefix sum, within a percent of its error."""
    workload = Workload.constant(steps=60)
    root = np.cumprod([1.0, *((2 * k - 1) / (2 * k) for k in range(1, 60))])
    root /= np.linalg.norm(root)
    found = optimal_coefficients(workload=workload, bands=60)
    known = relative_error(workload=workload, coefficients=root.tolist())
    ours = relative_error(workload=workload, coefficients=found)
    assert 0.95 * known < ours <= known


@pytest.mark.parametrize("steps", [300, 512])
def test_of_two_minima_the_lower_one_is_found(steps: int) -> None:
    """Two bands under momentum: nearly equal coefficients leave 0.708, the near minimum 0.746."""
    workload = Workload.constant(steps=steps, momentum=0.9, averaged=0.5)
    found = optimal_coefficients(workload=workload, bands=2)
    assert relative_error(workload=workload, coefficients=found) < 0.71


def test_the_largest_noise_of_a_step_is_that_of_the_last() -> None:
    """Rows of C⁻¹, written out: no norm exceeds the last one, which is what is said."""
    column = np.zeros(12)
    column[:3] = optimal_coefficients(workload=COURSES["momentum and a mean"], bands=3)
    inverse = inverse_series(column)
    rows = [[inverse[t - u] if u <= t else 0.0 for u in range(12)] for t in range(12)]
    norms = np.linalg.norm(rows, axis=1)
    told = largest_step_noise(coefficients=column[:3].tolist(), steps=12)
    assert told == pytest.approx(norms.max()) == pytest.approx(norms[-1])
    assert largest_step_noise(coefficients=(1.0,), steps=5) == 1.0
