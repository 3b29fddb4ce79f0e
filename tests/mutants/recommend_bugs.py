"""Bugs of what is planned and recommended: noise beside settings that it was not priced for."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.correlation_bugs import ACCOUNTING

_CALIBRATE = "tests/cli/calibration/test_banded_noise.py"
_RECOMMEND = "tests/cli/calibration/test_recommendation.py"
_COMPUTE = f"{ACCOUNTING}/calibration/test_compute_budget.py"

RECOMMEND_BUGS = [
    Bug(
        "a step's rate beside a turn's noise",
        "σ that was priced at bB/N is told together with B/N",
        (
            Patch(
                "dpacc.cli.calibration.sampled_over_steps",
                '"sample_rate": made.sample_rate,',
                '"sample_rate": settings["batch_size"] / settings["dataset_size"],',
            ),
        ),
        (f"{_CALIBRATE}::test_the_rate_beside_sigma_is_the_one_that_was_priced",),
    ),
    Bug(
        "a recommendation of half the steps",
        "noise and ε are of fewer steps than the run that is compared and advised",
        (
            Patch(
                "dpacc_accounting.calibration.compute_budget",
                "            steps=chosen.steps,\n            epsilon=epsilon,",
                "            steps=chosen.steps // 2,\n            epsilon=epsilon,",
            ),
            Patch(
                "dpacc_accounting.calibration.compute_budget",
                "workload=comparing.workload(chosen.steps),",
                "workload=comparing.workload(chosen.steps // 2),",
            ),
            Patch(
                "dpacc.cli.calibration.recommendation",
                '"steps": found.calibration.calibration.steps,',
                '"steps": found.chosen.steps,',
            ),
        ),
        (
            f"{_COMPUTE}::test_what_is_recommended_keeps_the_budget",
            f"{_RECOMMEND}::test_its_lines_make_a_run_of_that_noise",
        ),
    ),
    Bug(
        "turns compared at a step's rate",
        "a group's turns are priced as if each unit joined them with B/N instead of bB/N",
        (
            Patch(
                "dpacc_accounting.calibration.compute_budget",
                "self._noise(bands * batch, math.ceil(steps / bands))",
                "self._noise(batch, math.ceil(steps / bands))",
            ),
        ),
        (f"{_COMPUTE}::test_each_noise_is_that_of_the_run_it_stands_for",),
    ),
]
