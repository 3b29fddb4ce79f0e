"""Mistakes about whom the guarantee is for, and about what was made of whose data beforehand."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_IDENTITY = f"{DPACC}/test_unit_identity.py"
_OWNERS = "dpacc.unit_identity"

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
            f"{DPACC}/test_accumulation.py::test_a_whole_user_changes_the_sum_by_at_most_c[tensor]",
        ),
        quick=True,
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
)
