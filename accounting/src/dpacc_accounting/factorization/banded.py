"""The banded Toeplitz C with columns of norm at most 1 that leaves a workload least noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dpacc_accounting.events.arguments import whole
from dpacc_accounting.factorization.workload import NoiseTable, Series, Workload, correlate, fold

# Coefficients are cut to so many decimals, so that other processors' last digits do not show.
_DECIMALS = 5
# In place of a logarithm that has no double.
_UNBOUNDED = 1e3


def optimal_coefficients(*, workload: Workload, bands: int) -> tuple[float, ...]:
    """C's first column: of `bands` numbers, c_0 > 0, with Σ c² just below 1.

    Minimises the mean square of C⁻¹z in the workload, over all Toeplitz C of as many bands; the
    search starts from the square root of the prefix sum (arXiv 2202.11205), cut off, and where two
    bands have two minima from nearly equal ones as well.

    Args:
        workload: what the run makes of its noise.
        bands: b, at least 1; at most the workload's steps count.

    Raises:
        ValueError: `bands` is no whole number above 0.

    Source: Choquette-Choo et al. 2023 (arXiv 2306.08153), section 4; Toeplitz as in McKenna 2024
    (arXiv 2405.15913).

    >>> two = optimal_coefficients(workload=Workload.constant(steps=10), bands=2)
    >>> two, round(relative_error(workload=Workload.constant(steps=10), coefficients=two), 3)
    ((0.87602, 0.48226), 0.81)
    """
    from scipy.optimize import minimize

    bands = min(whole("bands", bands), workload.steps)
    table = NoiseTable(workload)
    if bands == 1:
        return (1.0,)

    def loss(free: Series) -> tuple[float, Series]:
        with np.errstate(all="ignore"):
            value, slope = _loss(table, np.concatenate([[1.0], free]))
        if not (math.isfinite(value) and np.isfinite(slope).all()):
            # A trial whose inverse grows without end: so bad that the search turns back.
            return _UNBOUNDED, np.zeros(len(free))
        return math.log(value), slope[1:] / value

    start = np.cumprod([1.0, *((2 * k - 1) / (2 * k) for k in range(1, bands))])[1:]
    starts = [start, 1.9 * start] if bands == 2 else [start]
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9}
    found = [minimize(loss, x, jac=True, method="L-BFGS-B", options=options) for x in starts]
    column = np.concatenate([[1.0], min(found, key=lambda each: float(each.fun)).x])
    column /= np.linalg.norm(column)
    # Towards 0, so that the norm stays at most 1.
    return tuple(math.trunc(c * 10**_DECIMALS) / 10**_DECIMALS for c in column.tolist())


def relative_error(*, workload: Workload, coefficients: Sequence[float]) -> float:
    """Root mean square of the noise in the workload, over that of independent noise of the same σ.

    >>> relative_error(workload=Workload.constant(steps=10), coefficients=(1.0,))
    1.0
    """
    column = np.zeros(workload.steps)
    column[: len(coefficients)] = coefficients[: workload.steps]
    return math.sqrt(NoiseTable(workload).mean_square(inverse_series(column)))


def largest_step_noise(*, coefficients: Sequence[float], steps: int) -> float:
    """Standard deviation of the noise in the last step, the largest, over that of z: ‖C⁻¹'s row‖.

    >>> round(largest_step_noise(coefficients=(0.8, 0.6), steps=100), 2)
    1.89
    """
    column = np.zeros(steps)
    column[: len(coefficients)] = coefficients[:steps]
    return float(np.linalg.norm(inverse_series(column)))


def inverse_series(column: Series) -> Series:
    """d with c·d = 1 as power series: the first column of C⁻¹.

    >>> inverse_series(np.array([1.0, 0.5, 0.0])).tolist()
    [1.0, -0.5, 0.25]
    """
    from scipy.signal import lfilter

    impulse = np.zeros(len(column))
    impulse[0] = 1.0
    nonzero = int(np.flatnonzero(column)[-1]) + 1
    return np.asarray(lfilter([1.0], column[:nonzero], impulse))


def _loss(table: NoiseTable, column: Series) -> tuple[float, Series]:
    """‖c‖² times the mean square of C⁻¹z, and its gradient in c."""
    whole_column = np.zeros(table.steps)
    whole_column[: len(column)] = column
    inverse = inverse_series(whole_column)
    value, slope = table.gradient(inverse)
    # d = 1/c, so that a change of c changes d by −d·d times it.
    by_column = -correlate(slope, fold(inverse, inverse))[: len(column)]
    square = float(column @ column)
    return square * value, square * by_column + 2 * value * column
