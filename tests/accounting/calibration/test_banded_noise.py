"""Choosing the number of bands: the budget is kept, and what is gained is what is said."""

from __future__ import annotations

import pytest
from dpacc_accounting import CyclicPoissonSampled, Workload, calibrate_banded_noise, epsilon

TABLE = [
    (8_192, 512, 32, 1.0, 0.997, 2),
    (8_192, 512, 32, 8.0, 0.66, 16),
    (8_192, 128, 128, 1.0, 0.85, 4),
    (8_192, 128, 128, 8.0, 0.49, 64),
    (9_603, 96, 300, 1.0, 0.82, 4),
    (9_603, 96, 300, 8.0, 0.476, 32),
    (67_349, 256, 790, 1.0, 0.677, 8),
]
"""N, B, T, ε, what is left of the accumulated noise, and the best number of bands."""


@pytest.mark.parametrize(("size", "batch", "steps", "budget", "left", "bands"), TABLE)
def test_accumulated_noise_that_is_left(
    size: int, batch: int, steps: int, budget: float, left: float, bands: int
) -> None:
    """Root mean square over all iterates of plain SGD, at δ = N^-1.1, as computed otherwise."""
    found = calibrate_banded_noise(
        dataset_size=size,
        batch_size=batch,
        steps=steps,
        epsilon=budget,
        delta=size**-1.1,
        workload=Workload.constant(steps=steps),
    )
    assert found.error == pytest.approx(left, abs=0.006)
    assert found.bands == bands
    assert 0.999 * budget < found.calibration.guarantee.epsilon <= budget
    event = found.calibration.event
    assert isinstance(event, CyclicPoissonSampled)
    assert (event.groups, event.steps) == (bands, steps)
    assert found.calibration.sample_rate == bands * batch / size
    assert epsilon(event=event, delta=size**-1.1).epsilon <= budget


def test_where_it_does_not_pay_noise_stays_independent() -> None:
    """A tenth of the data in each of four steps at a small ε: one band, and plain Poisson."""
    found = calibrate_banded_noise(
        dataset_size=1000,
        batch_size=400,
        steps=4,
        epsilon=0.5,
        delta=1e-4,
        workload=Workload.constant(steps=4),
    )
    assert (found.bands, found.error, found.coefficients) == (1, 1.0, (1.0,))
    assert found.calibration.sampling == "poisson"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bands": 40}, "at most 25"),
        ({"bands": 0.5}, "bands"),
        ({"bands": 2, "workload": Workload.constant(steps=7)}, "7 steps"),
    ],
)
def test_what_cannot_be_done_is_refused(wrong: dict[str, object], told: str) -> None:
    """More bands than groups of a batch's size, no whole number, another run's workload."""
    with pytest.raises(ValueError, match=told):
        calibrate_banded_noise(
            dataset_size=1000,
            batch_size=40,
            steps=100,
            epsilon=1.0,
            delta=1e-4,
            **wrong,  # type: ignore[arg-type]
        )
