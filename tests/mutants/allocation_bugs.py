"""Bugs of random allocation: each unit in exactly one step of each epoch."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

ACCOUNTING = "tests/accounting"
_SAMPLING = f"{DPACC}/randomness/test_sampling.py"
_STEPS = f"{DPACC}/step/test_allocated_steps.py"
_DOCTOR = (
    f"{DPACC}/doctor/test_engine_room.py::test_the_engine_is_healthy[{{'sampling': 'allocated'}}]"
)
_AUDIT = (
    f"{DPACC}/audit/test_rehearsal.py::test_an_honest_engine_keeps_its_claim_narrowly[allocated]"
)
_BOOKS = f"{ACCOUNTING}/events/test_participation.py"
_NOISE = f"{ACCOUNTING}/calibration/test_allocated_noise.py"
_EVENTS = "dpacc_accounting.events.participation"
_SAMPLER = "dpacc.randomness.sampling"

ALLOCATION_BUGS = [
    Bug(
        "allocated twice an epoch",
        "a unit is drawn for two steps of an epoch that is paid for one",
        (
            Patch(
                _SAMPLER,
                "np.flatnonzero(self.places(epoch=epoch) == place)",
                "np.union1d(np.flatnonzero(self.places(epoch=epoch) == place), "
                "np.flatnonzero(self.places(epoch=-1 - epoch) == place))",
            ),
        ),
        (
            f"{_SAMPLING}::test_every_example_is_in_exactly_one_step_of_each_epoch",
            _DOCTOR,
            _AUDIT,
        ),
    ),
    Bug(
        "one allocation for all epochs",
        "who is found in a step of one epoch is found there in all: what is priced is drawn afresh",
        (Patch(_SAMPLER, 'purpose="allocation", step=epoch', 'purpose="allocation", step=0'),),
        (
            f"{_SAMPLING}::test_an_examples_step_is_uniform_over_secrets_and_epochs",
            f"{_SAMPLING}::test_examples_and_epochs_are_allocated_independently",
            f"{_STEPS}::test_neighbours_differ_in_one_step_of_each_epoch_by_at_most_c",
            _DOCTOR,
        ),
    ),
    Bug(
        "allocated by a public seed",
        "whoever reads the code knows each unit's step, where the price counts on nobody knowing",
        (
            Patch(
                _SAMPLER,
                'self.secret.stream(purpose="allocation"',
                'RunSecret.from_fixed_seed(0).stream(purpose="allocation"',
            ),
        ),
        (f"{_SAMPLING}::test_an_examples_step_depends_on_its_own_place_alone",),
    ),
    Bug(
        "shuffled and not allocated",
        "batches of one size are cut from a random order, so that a unit's step moves others",
        (
            Patch(
                _SAMPLER,
                "(words % np.uint64(self.steps_an_epoch))",
                "(np.argsort(np.argsort(words)) % self.steps_an_epoch)",
            ),
        ),
        (
            f"{_SAMPLING}::test_every_example_is_in_exactly_one_step_of_each_epoch",
            f"{_SAMPLING}::test_an_examples_step_depends_on_its_own_place_alone",
            _DOCTOR,
        ),
    ),
    Bug(
        "resumed amid an epoch",
        "a new secret allocates the epoch's units anew before all had their step",
        (
            Patch(
                _EVENTS,
                "    def _epoch(self",
                "    def next_start(self, *, steps_charged: int) -> int:\n"
                "        return steps_charged\n\n"
                "    def _epoch(self",
            ),
        ),
        (
            f"{_STEPS}::test_a_new_process_waits_for_the_next_epoch",
            f"{_BOOKS}::test_a_new_secret_waits_for_the_next_epoch",
        ),
    ),
    Bug(
        "epochs paid at their end",
        "the books are behind what the steps of an epoch have released",
        (Patch(_EVENTS, "if step % self.cycle:", "if (step + 1) % self.cycle:"),),
        (
            f"{_BOOKS}::test_charges_of_allocated_epochs_add_up_to_their_event_after_any_step",
            f"{_STEPS}::test_the_books_hold_epochs_and_are_right_after_every_step",
        ),
    ),
    Bug(
        "an epoch paid as one Poisson step",
        "all of an epoch's steps cost what one of them would",
        (
            Patch(
                _EVENTS,
                "            return taken\n",
                "            return PoissonSampled(probability=1 / steps, event=noise)\n",
            ),
        ),
        (
            f"{_NOISE}::test_simulated_runs_lose_no_more_than_was_asked_for",
            f"{_NOISE}::test_less_noise_than_poisson_sampling_at_the_same_budget",
        ),
    ),
    Bug(
        "a cut epoch paid as one of its steps",
        "a unit is in one of the steps of an unfinished epoch with the chance of a single one",
        (Patch(_EVENTS, "probability=steps / self.cycle", "probability=1 / self.cycle"),),
        (f"{_BOOKS}::test_the_first_steps_of_simulated_epochs_lose_what_is_claimed",),
    ),
]
