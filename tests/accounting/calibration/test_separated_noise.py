"""Noise for rounds apart meets its target by no more than it must."""

from __future__ import annotations

import math

import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    Workload,
    calibrate_separated_noise,
    epsilon,
)
from dpacc_accounting.gaussian import gaussian_mu

ASKED = {"rounds": 50, "min_separation": 10, "epsilon": 4.0, "delta": 1e-6}


@pytest.mark.parametrize("correlation", ["independent", "banded", "buffers"])
@pytest.mark.parametrize("adjacency", [Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE])
def test_the_target_is_met_and_barely(correlation: str, adjacency: Adjacency) -> None:
    """σ is S·reach/μ of the closed form, rounded up; ε is at most the target."""
    found = calibrate_separated_noise(**ASKED, correlation=correlation, adjacency=adjacency)  # type: ignore[arg-type]
    assert found.guarantee.epsilon <= 4.0
    assert found.guarantee == epsilon(
        event=found.event, delta=1e-6, adjacency=adjacency, unit="client"
    )
    reach = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    exact = found.event.sensitivity * reach / gaussian_mu(epsilon=4.0, delta=1e-6)
    assert exact <= found.noise_multiplier < exact * (1 + 5e-5)


def test_bands_cost_a_gaussian_a_turn() -> None:
    """Five turns of a column of norm 1: σ is √5 of one Gaussian's, as for independent noise."""
    once = 1 / gaussian_mu(epsilon=4.0, delta=1e-6)
    found = calibrate_separated_noise(**ASKED)  # type: ignore[arg-type]
    assert found.event.turns == 5
    assert found.noise_multiplier == pytest.approx(math.sqrt(5) * once, rel=1e-4)
    assert found.error == pytest.approx(0.466, abs=5e-4)
    seen = epsilon(event=Gaussian(noise_multiplier=found.noise_multiplier), delta=1e-6)
    assert seen.epsilon < 4.0


def test_a_limit_on_participations_buys_less_noise() -> None:
    """Two rounds of each client at most: σ of √2 Gaussians, not √5."""
    limited = calibrate_separated_noise(**ASKED, participations=2)  # type: ignore[arg-type]
    free = calibrate_separated_noise(**ASKED)  # type: ignore[arg-type]
    assert limited.noise_multiplier == pytest.approx(
        free.noise_multiplier * math.sqrt(2 / 5), rel=1e-4
    )


def test_what_does_not_fit_is_refused() -> None:
    """An unknown correlation, and a workload of other rounds."""
    with pytest.raises(ValueError, match="correlation='tree'"):
        calibrate_separated_noise(**ASKED, correlation="tree")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7 steps, and the run 50 rounds"):
        calibrate_separated_noise(**ASKED, workload=Workload.constant(steps=7))  # type: ignore[arg-type]
