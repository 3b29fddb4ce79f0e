"""Solve for correlated noise: how many bands, which coefficients, and how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dpacc_accounting.calibration.noise import (
    calibrate_noise,
    noise_at_rate,
)
from dpacc_accounting.calibration.training_runs import Calibration, require_sizes, whole_steps
from dpacc_accounting.events.arguments import whole
from dpacc_accounting.events.participation import Participation
from dpacc_accounting.factorization.banded import optimal_coefficients, relative_error
from dpacc_accounting.factorization.workload import Workload
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pricing.price import epsilon as price_epsilon

MOST_BANDS = 64
"""More are not tried: each is a vector as long as all adapters, in memory."""
USUAL_MOMENTUM = 0.9
"""Of Adam's first moment, and of SGD as it is run."""


@dataclass(frozen=True, kw_only=True)
class BandedCalibration:
    """Correlated noise that meets a target.

    Args:
        calibration: σ, steps and the guarantee; its `sample_rate` is bB/N, its event cyclic.
        coefficients: C's first column, of b numbers; (1.0,) where independent noise is best.
        independent_noise: σ of independent noise for the same target.
        error: root mean square of the noise in the workload, relative to independent noise of
            `independent_noise`.
    """

    calibration: Calibration
    coefficients: tuple[float, ...]
    independent_noise: float
    error: float

    @property
    def bands(self) -> int:
        """b."""
        return len(self.coefficients)


def calibrate_banded_noise(
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    bands: int | None = None,
    workload: Workload | None = None,
) -> BandedCalibration:
    """The banded noise that leaves least in a workload and keeps a training run (ε, δ)-private.

    Args:
        dataset_size: number of privacy units N.
        batch_size: expected logical batch size B; each of b groups is drawn from with chance bB/N.
        epochs: expected passes over the data; T = ⌈epochs · N / batch_size⌉. Or give `steps`.
        steps: T itself.
        epsilon: target ε > 0.
        delta: target δ, below 1/N.
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        bands: b; left out, the best of 1, 2, 4 … 64.
        workload: what the run makes of its noise; left out, a constant learning rate with
            momentum 0.9.

    Raises:
        ValueError: an argument is out of range, `bands` · B exceeds N or the workload has another
            number of steps.

    Source: Choquette-Choo et al. 2023 (arXiv 2306.08153).

    >>> found = calibrate_banded_noise(dataset_size=67349, batch_size=256, epochs=3, epsilon=8.0,
    ...                                delta=1e-5, bands=8)
    >>> found.bands, round(found.calibration.noise_multiplier, 3), round(found.error, 2)
    (8, 0.595, 0.46)
    """
    size, batch = require_sizes(dataset_size, batch_size)
    count = whole_steps(size, batch, epochs, steps)
    usual = calibrate_noise(
        dataset_size=size,
        batch_size=batch,
        steps=count,
        epsilon=epsilon,
        delta=delta,
        adjacency=adjacency,
        unit=unit,
    )
    course = workload or Workload.constant(steps=count, momentum=USUAL_MOMENTUM)
    if course.steps != count:
        raise ValueError(f"the workload has {course.steps} steps, and the run {count}")
    found = [
        _with_bands(each, usual, course, size=size, batch=batch, target=epsilon)
        for each in ([_fitting(bands, size, batch, count)] if bands else _tried(size, batch, count))
    ]
    return min(found, key=lambda each: each.error)


def _tried(size: int, batch: int, steps: int) -> list[int]:
    """Powers of two that fit."""
    most = min(MOST_BANDS, size // batch, steps)
    return [1 << power for power in range(most.bit_length())]


def _fitting(bands: int, size: int, batch: int, steps: int) -> int:
    bands = whole("bands", bands)
    if bands * batch > size or bands > steps:
        raise ValueError(
            f"bands={bands} do not fit {steps} steps of {batch} units out of {size}, whose groups "
            f"would hold {size / bands:.6g} each; at most {min(size // batch, steps)} do"
        )
    return bands


def _with_bands(
    bands: int,
    usual: Calibration,
    workload: Workload,
    *,
    size: int,
    batch: int,
    target: float,
) -> BandedCalibration:
    if bands == 1:
        return BandedCalibration(
            calibration=usual,
            coefficients=(1.0,),
            independent_noise=usual.noise_multiplier,
            error=1.0,
        )
    guarantee = usual.guarantee
    found = noise_at_rate(
        sample_rate=bands * batch / size,
        steps=math.ceil(usual.steps / bands),
        epsilon=target,
        delta=guarantee.delta,
        adjacency=guarantee.adjacency,
        unit=guarantee.unit,
    )
    run = Participation(
        dataset_size=size,
        expected_batch_size=batch,
        noise_multiplier=found.noise_multiplier,
        bands=bands,
    )
    event = run.event(steps=usual.steps)
    coefficients = optimal_coefficients(workload=workload, bands=bands)
    left = relative_error(workload=workload, coefficients=coefficients)
    return BandedCalibration(
        calibration=replace(
            found,
            steps=usual.steps,
            event=event,
            sampling="cyclic-poisson",
            guarantee=price_epsilon(
                event=event,
                delta=guarantee.delta,
                adjacency=guarantee.adjacency,
                unit=guarantee.unit,
            ),
        ),
        coefficients=coefficients,
        independent_noise=usual.noise_multiplier,
        error=left * found.noise_multiplier / usual.noise_multiplier,
    )
