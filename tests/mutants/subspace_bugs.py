"""Bugs of a phase that is taken within few directions."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_TESTS = f"{DPACC}/layers/test_subspace.py"

SUBSPACE_BUGS = [
    Bug(
        "sum outside the subspace released",
        "the second phase adds whole gradients, and noise within the subspace alone",
        (
            Patch(
                "dpacc.step.strategies",
                "if self._subspace.basis is None:",
                "if True:",
            ),
            Patch(
                "dpacc.layers.subspace",
                "return whole if subspace is None or subspace.basis is None else subspace.layout",
                "return whole",
            ),
            Patch(
                "dpacc.step.release",
                "total += self._reduction.part(self._noise(index))",
                "total += self._lifted(self._noise(index))",
            ),
            Patch(
                "dpacc.step.release",
                "gradient = total[: self._width] / plan.expected_batch_size",
                "gradient = total / plan.expected_batch_size",
            ),
            Patch(
                "dpacc.step.release",
                "gradient = self._lifted(self._of_learners(index, gradient))",
                "gradient = self._of_learners(index, gradient)",
            ),
        ),
        (f"{_TESTS}::test_what_a_second_phase_releases_lies_within_the_subspace",),
    ),
    Bug(
        "directions of sums without noise",
        "the subspace is found on what the first phase summed, before its noise, and is seen",
        (
            Patch(
                "dpacc.step.release",
                "self._subspace.follow(index, gradient)",
                "self._subspace.follow(index, clipped[: self._elements])",
            ),
        ),
        (f"{_TESTS}::test_the_directions_are_those_of_what_was_released",),
    ),
    Bug(
        "clipped by one direction",
        "a unit's norm within the subspace is that of the first of its numbers",
        (
            Patch(
                "dpacc.step.strategies",
                "squares = projected.rows.square().sum(dim=1, keepdim=True)",
                "squares = projected.rows[:, :1].square().sum(dim=1, keepdim=True)",
            ),
        ),
        (f"{_TESTS}::test_a_unit_weighs_at_most_c_within_the_subspace[changes0-materialize]",),
    ),
]
