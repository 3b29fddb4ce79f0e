"""Bugs of correlated noise and of units that take turns."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

ACCOUNTING = "tests/accounting"
_SAMPLING = f"{DPACC}/randomness/test_sampling.py"
_NOISE = f"{DPACC}/randomness/test_correlated_noise.py"
_STEPS = f"{DPACC}/step/test_correlated_steps.py"
_AUDIT = f"{DPACC}/audit/test_rehearsal.py"
_EVENTS = f"{ACCOUNTING}/events/test_sampled_over_steps.py"
_BOOKS = f"{ACCOUNTING}/events/test_participation.py"

CORRELATION_BUGS = [
    Bug(
        "groups ignored",
        "every unit may join every step with the probability of its own group's turn",
        (
            Patch(
                "dpacc.randomness.sampling",
                "joins if self.groups == 1 else joins & self._may_join(step)",
                "joins",
            ),
        ),
        (
            f"{_SAMPLING}::test_examples_join_in_their_groups_turn_alone",
            f"{_AUDIT}::test_an_honest_engine_keeps_its_claim_narrowly",
        ),
    ),
    Bug(
        "groups drawn again",
        "each cycle puts units into other groups, so that turns come closer than b steps",
        (
            Patch(
                "dpacc.randomness.sampling",
                "self.turns() == step % self.groups",
                '(self._words("groups", step // self.groups) % np.uint64(self.groups)).astype('
                "np.intp) == step % self.groups",
            ),
        ),
        (f"{_SAMPLING}::test_examples_join_in_their_groups_turn_alone",),
    ),
    Bug(
        "groups of public numbers",
        "a unit's group follows from its place, which a removed unit shifts for all behind it",
        (
            Patch(
                "dpacc.randomness.sampling",
                'self._words("groups", 0) % np.uint64(self.groups)',
                "np.arange(self.dataset_size, dtype=np.uint64) % np.uint64(self.groups)",
            ),
        ),
        (f"{_SAMPLING}::test_other_secrets_draw_other_groups",),
    ),
    Bug(
        "C not normalised",
        "C's first element is 1, so that a unit moves C·G by more than was charged",
        (
            Patch(
                "dpacc_accounting.factorization.banded",
                "column /= np.linalg.norm(column)",
                "column /= column[0]",
            ),
            Patch(
                "dpacc_accounting.ledger.plan_settings",
                "math.fsum(c * c for c in coefficients) <= _UNIT",
                "True",
            ),
        ),
        (
            f"{ACCOUNTING}/factorization/test_banded.py::test_no_coefficients_nearby_are_better",
            f"{_EVENTS}::test_no_participation_moves_a_sequence_by_more_than_was_charged",
            f"{_STEPS}::test_a_plan_that_promises_what_is_not_so_is_refused",
        ),
    ),
    Bug(
        "noise by C itself",
        "later steps add earlier noise once more instead of taking it back",
        (Patch("dpacc.randomness.correlated_noise", "left -= coeff", "left += coeff"),),
        (
            f"{_NOISE}::test_its_covariance_is_that_of_the_inverse",
            f"{_STEPS}::test_the_noise_is_the_inverse_of_what_was_charged",
        ),
    ),
    Bug(
        "noise scaled away",
        "what becomes of a released row reaches the rows after it",
        (Patch("dpacc.randomness.correlated_noise", "self._last[1].copy()", "self._last[1]"),),
        (
            f"{_NOISE}::test_a_row_may_be_scaled_by_who_gets_it",
            f"{_STEPS}::test_the_noise_is_the_inverse_of_what_was_charged",
        ),
    ),
    Bug(
        "resumed amid a cycle",
        "a new secret draws new groups before the old ones had their turns",
        (
            Patch(
                "dpacc_accounting.events.participation",
                "return -(-steps_charged // self.cycle) * self.cycle",
                "return steps_charged",
            ),
        ),
        (
            f"{_STEPS}::test_a_new_process_begins_a_cycle_of_its_own",
            f"{_BOOKS}::test_runs_of_several_secrets_charge_every_groups_most_turns",
        ),
    ),
    Bug(
        "cycles paid at their end",
        "the books are behind what the first groups of a cycle have released",
        (
            Patch(
                "dpacc_accounting.events.participation",
                "if step % self.bands:",
                "if (step + 1) % self.bands:",
            ),
        ),
        (
            f"{_BOOKS}::test_charges_add_up_to_the_worst_groups_price_after_any_step",
            f"{_STEPS}::test_the_books_hold_cycles_and_are_right_after_every_step",
        ),
    ),
    Bug(
        "turns rounded down",
        "a cycle that has begun is not counted until it is over",
        (
            Patch(
                "dpacc_accounting.events.sampled_over_steps",
                "return -(-self.steps // self.groups)",
                "return max(self.steps // self.groups, 1)",
            ),
        ),
        (f"{_EVENTS}::test_it_costs_what_its_first_groups_turns_cost",),
        quick=True,
    ),
    Bug(
        "pairs priced as of one group",
        "two units whose rows of C·G overlap are priced as if they did not",
        (
            Patch(
                "dpacc_accounting.groups",
                "size > _LARGEST_GROUP or in_turns",
                "size > _LARGEST_GROUP",
            ),
        ),
        (f"{_EVENTS}::test_a_group_of_units_gets_the_general_rule",),
    ),
]
