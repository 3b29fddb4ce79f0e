"""Mistakes that a federation of hospitals could make about who is protected, and who measured."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_ROOM = "dpacc.federated.healthcare"
_SCENARIO = f"{DPACC}/federated/healthcare/test_scenario.py"
_NOTES = f"{DPACC}/federated/healthcare/test_notes.py"

HOSPITAL_BUGS = (
    Bug(
        "a note for a patient",
        "a hospital whose budget names no unit protects a note, where ε is said to be a patient's",
        (
            Patch(
                f"{_ROOM}.scenario",
                "unit_field=own.unit_field or PATIENT",
                "unit_field=own.unit_field",
            ),
        ),
        (f"{_SCENARIO}::test_a_patient_is_what_every_ledger_protects",),
    ),
    Bug(
        "everybody at the most lenient hospital's ε",
        "notes that lie in one place are trained on for the largest ε that any hospital allows",
        (
            Patch(
                f"{_ROOM}.scenario",
                "min(own.epsilon for own in owners)",
                "max(own.epsilon for own in owners)",
            ),
        ),
        (f"{_SCENARIO}::test_a_patient_is_what_every_ledger_protects",),
    ),
    Bug(
        "measured on those who are trained on",
        "a patient's notes are held out at one hospital and trained on at another",
        (
            Patch(
                f"{_ROOM}.held_out_notes",
                "own & measured - {None}",
                "own & set[object]()",
            ),
        ),
        (f"{_SCENARIO}::test_whoever_is_trained_on_is_not_measured_on",),
    ),
    Bug(
        "held-out lives are trained on",
        "the diseases of held-out patients come from lives that training patients have, too",
        (
            Patch(
                f"{_ROOM}.hospitals",
                "own = [each for each in every if each not in apart] or every",
                "own = every",
            ),
        ),
        (f"{_NOTES}::test_no_patient_and_no_life_is_both_trained_on_and_measured",),
    ),
)
