"""Bugs of runs whose batch and noise change from phase to phase."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_BOOKS = "tests/accounting/events/test_participation.py"
_STEPS = f"{DPACC}/step/test_phased_steps.py"
_PLAN = f"{DPACC}/plan/test_several_phases.py"
_NOISE = f"{_STEPS}::test_every_phase_has_its_own_noise"

PHASE_BUGS = [
    Bug(
        "every phase charged as the first",
        "a later phase of more units or less noise is charged with the first one's numbers",
        (
            Patch(
                "dpacc_accounting.events.participation",
                "return self._of(phase_at(self.phases, step=step)).charge(step=step, steps=steps)",
                "return self._of(self.phases[0]).charge(step=step, steps=steps)",
            ),
        ),
        (
            f"{_BOOKS}::test_phases_cost_their_composition_after_any_step",
            f"{_STEPS}::test_the_books_are_right_after_every_step",
        ),
    ),
    Bug(
        "every phase noised as the first",
        "a later phase is charged with its own noise and gets the first one's",
        (
            Patch(
                "dpacc.step.release",
                "plan = self._plan.at(index)\n        noise[",
                "plan = self._plan.at(0)\n        noise[",
            ),
        ),
        (f"{_NOISE}[changes0]",),
    ),
    Bug(
        "phases drawn at another rate than charged",
        "units join a step at the next phase's rate, which is charged for its own steps alone",
        (
            Patch(
                "dpacc.randomness.sampling",
                "sampler_for(plan=self.plan.at(step), ",
                "sampler_for(plan=self.plan.at(step + 2), ",
            ),
        ),
        (
            f"{_STEPS}::test_units_join_at_the_rate_of_the_phase",
            f"{_STEPS}::test_the_doctor_looks_at_every_phase",
        ),
    ),
    Bug(
        "order of phases lost",
        "a ledger holds its phases sorted, so that a resume in another order is the same run",
        (
            Patch(
                "dpacc.plan.privacy_plan",
                '{"phases": [*phases]}',
                '{"phases": sorted(phases, key=lambda each: each["steps"])}',
            ),
        ),
        (
            f"{_PLAN}::test_a_plan_survives_its_document",
            f"{_STEPS}::test_a_run_goes_on_in_the_phase_where_it_stopped",
        ),
    ),
    Bug(
        "a phase forgotten in the price",
        "the noise is found for a run that ends before its last step's phase",
        (
            Patch(
                "dpacc_accounting.calibration.phased_noise",
                "return run.event(steps=steps)",
                "return run.event(steps=steps - given[-1].steps)",
            ),
        ),
        (
            "tests/accounting/calibration/test_phased_noise.py"
            "::test_the_noise_is_the_least_that_keeps_the_budget",
            f"{_PLAN}::test_a_calibrated_plan_keeps_its_budget_and_the_proportions",
        ),
    ),
    Bug(
        "coins of one phase again in the next",
        "a phase numbers its steps from 0, and so draws the units that the first phase drew",
        (
            Patch(
                "dpacc.randomness.sampling",
                "secret=self.secret).draw(step=step)",
                "secret=self.secret).draw(step=step % 2)",
            ),
        ),
        (f"{_STEPS}::test_units_join_at_the_rate_of_the_phase",),
    ),
]
