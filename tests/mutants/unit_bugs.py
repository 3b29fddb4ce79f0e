"""Mistakes about whom the guarantee is for, and about what was made of whose data beforehand."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_IDENTITY = f"{DPACC}/data/test_privacy_units.py"
_OVERLAP = f"{DPACC}/data/test_overlap.py"
_JOINED = f"{DPACC}/data/test_joined_texts.py"
_START = f"{DPACC}/step/admission/test_starting_point.py"
_OWNERS = "dpacc.data.privacy_units"
_MEMBERS = "dpacc.step.unit_members"
_BOUNDED = f"{DPACC}/step/test_unit_members.py"
_SINGLY = "tests/accounting/events/test_example_sampling.py"

UNIT_BUGS = (
    Bug(
        "owners compared by object",
        "a patient named by a tensor's elements falls apart into as many units as they have rows",
        (
            Patch(
                _OWNERS, "    if isinstance(units, range):\n", "    if hasattr(units, '__len__'):\n"
            ),
        ),
        (
            f"{_IDENTITY}::test_the_same_owner_is_one_unit_whatever_holds_it[tensor]",
            f"{DPACC}/step/test_accumulation.py::test_a_whole_user_changes_the_sum_by_at_most_c[tensor]",
        ),
    ),
    Bug(
        "two spellings are two people",
        "“Ann” and “ann ” are two units, each clipped alone",
        (Patch(_OWNERS, 'if kinds and kinds[0] == "text":', 'if kinds and kinds[0] == "":'),),
        (f"{_IDENTITY}::test_what_names_nobody_or_one_person_twice_is_refused",),
    ),
    Bug(
        "unknown owners are people",
        "each row without an owner is a unit, or all of them are one",
        (Patch(_OWNERS, "    _refuse_missing(owners)\n", ""),),
        (f"{_IDENTITY}::test_what_names_nobody_or_one_person_twice_is_refused",),
    ),
    Bug(
        "a unit's rows are counted aloud",
        "an error tells how many rows there are, which is private beside units",
        (
            Patch(
                _OWNERS,
                'f"there are {more} units than examples; ',
                'f"there are {more} units than {examples} examples; ',
            ),
        ),
        (f"{_IDENTITY}::test_the_number_of_rows_is_not_told_where_owners_are_counted",),
    ),
    Bug(
        "private examples held out",
        "exact metrics of training examples are computed, logged and saved without a word",
        (Patch("dpacc.data.overlap", "    if same:\n", "    if not held_out:\n"),),
        (f"{_OVERLAP}::test_a_trainer_evaluates_no_private_example[list]",),
    ),
    Bug(
        "later data is not compared",
        "`evaluate` and `predict` take the training data when it is given to them by hand",
        (
            Patch(
                "dpacc.trainer.evaluated_data",
                "self.admit_evaluated(self.eval_dataset if own else dataset)",
                "self.admit_evaluated(self.eval_dataset if own else None)",
            ),
        ),
        (f"{_OVERLAP}::test_data_that_is_given_later_is_compared_too",),
    ),
    Bug(
        "a person on both sides",
        "somebody who is protected as a whole is measured by other rows of theirs",
        (Patch("dpacc.data.overlap", "    if people:\n", "    if people > len(list(owners)):\n"),),
        (f"{_OVERLAP}::test_a_protected_person_may_not_stand_in_held_out_data",),
    ),
    Bug(
        "an allowed overlap is forgotten",
        "metrics of private examples are asked for, and neither ledger nor statement says it",
        (
            Patch(
                "dpacc.trainer.evaluated_data",
                "            self._engine.note(subject=subject, text=text)\n",
                "            assert subject and text\n",
            ),
        ),
        (f"{_OVERLAP}::test_an_allowed_overlap_is_in_ledger_and_statement",),
    ),
    Bug(
        "a start from private data",
        "EVA's A holds the main directions of what the layers read of the private examples",
        (Patch("dpacc.step.admission.trainable", "    refuse_starts_from_data(model)\n", ""),),
        (f"{_START}::test_a_start_from_data_is_refused_until_it_is_declared_public",),
    ),
    Bug(
        "whitened by private examples",
        "second moments of private data are in the saved weights, without noise",
        (
            Patch(
                "dpacc.step.engine",
                "        refuse_private_examples_in_the_start(self._model, dataset)\n",
                "",
            ),
        ),
        (f"{_START}::test_adapters_are_not_whitened_by_private_examples",),
    ),
    Bug(
        "whitening is kept quiet",
        "held-out people are in the weights, and neither ledger, statement nor card says so",
        (
            Patch(
                "dpacc.step.admission.starting_point",
                "return notes + [whitening_note(each.source) for each in _whitenings(model)]",
                "return notes",
            ),
        ),
        (f"{_START}::test_the_ledger_and_the_statement_say_by_whom_adapters_were_whitened",),
    ),
    Bug(
        "joined texts pass for records",
        "one record more changes every later block, each of which counts as an example",
        (
            Patch(
                "dpacc.data.joined_texts",
                "    if begins is not None and _begin_in_the_middle(rows, begins):\n",
                "    if begins is None:\n",
            ),
        ),
        (f"{_JOINED}::test_one_record_more_changes_every_block_and_is_refused",),
    ),
    Bug(
        "packed rows pass for records",
        "rows that say of themselves that they hold several sequences are taken",
        (
            Patch(
                "dpacc.data.joined_texts",
                "    if any(_is_packed(each) for each in held):\n",
                "    if not dataset:\n",
            ),
        ),
        (f"{_JOINED}::test_rows_that_say_that_they_are_packed_are_refused",),
    ),
    Bug(
        "all of a unit's examples are kept",
        "σ hides k examples of a person, and all of theirs are drawn from",
        (
            Patch(
                _MEMBERS,
                "            kept = [i for unit in of_units for i in "
                'self._kept(unit, purpose="kept", step=0)]\n',
                "            kept = [i for unit in of_units for i in unit]\n",
            ),
        ),
        (
            f"{_BOUNDED}::test_kept_examples_are_drawn_one_by_one_and_hold_for_the_run",
            f"{_BOUNDED}::test_a_user_whose_examples_are_drawn_weighs_at_most_k_times_c",
        ),
    ),
    Bug(
        "one of a unit's examples is charged",
        "examples are drawn, and the noise is priced as if nobody had two",
        (
            Patch(
                "dpacc_accounting.events.example_sampling",
                "            sensitivities=tuple(map(float, range(self.unit_cap + 1))),\n",
                "            sensitivities=(0.0, *(1.0 for _ in range(self.unit_cap))),\n",
            ),
        ),
        (
            f"{_SINGLY}::test_it_is_dp_accountings_price",
            f"{_SINGLY}::test_no_data_of_a_unit_lose_more[mine0-others0]",
            f"{DPACC}/audit/test_rehearsal.py::"
            "test_an_honest_engine_keeps_its_claim_narrowly[singly]",
        ),
    ),
    Bug(
        "the first of a unit's examples count",
        "which rows count follows their places, so that whoever sorts a file chooses them",
        (
            Patch(
                _MEMBERS,
                "        first = np.argsort(self._words(purpose, step)[places], "
                'kind="stable")[: self._cap]\n',
                "        first = np.arange(len(places))[: self._cap]\n",
            ),
        ),
        (
            f"{_BOUNDED}::test_each_step_takes_other_examples_of_a_unit",
            f"{_BOUNDED}::test_the_draw_is_a_secret_one",
        ),
    ),
    Bug(
        "the doctor looks at no whole unit",
        "single examples are examined alone, so that more of a unit than the noise hides pass",
        (
            Patch(
                "dpacc.doctor.engine_room",
                "    if plan.unit_cap is not None:\n        moved",
                "    if plan.unit_cap == 0:\n        moved",
            ),
        ),
        (f"{DPACC}/doctor/test_engine_room.py::test_a_unit_of_which_too_much_is_kept_is_found",),
    ),
)
