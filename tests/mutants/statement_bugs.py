"""Ways to state an ε that does not hold, or to lose count of what copies released."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_EVERYWHERE = f"{DPACC}/artifacts/test_stated_everywhere.py"
_LEDGER = "tests/accounting/ledger/test_writer.py::TestWriting"
_MERGING = "tests/accounting/ledger/test_merging.py"
_DOCTOR = "tests/cli/test_doctor.py::test_a_forged_folder_is_unhealthy"
_FORKED = f"{DPACC}/step/test_forked_books.py"

STATEMENT_BUGS = (
    Bug(
        "void ε stays finite",
        "a guarantee beside a fixed seed still shows the ε that was paid for",
        (
            Patch(
                "dpacc_accounting.guarantee",
                '        if self.void_because:\n            object.__setattr__(self, "epsilon", math.inf)\n',
                '        if False:\n            object.__setattr__(self, "epsilon", math.inf)\n',
            ),
        ),
        (f"{_EVERYWHERE}::test_get_epsilon_is_infinite_or_warns[void]",),
    ),
    Bug(
        "engine forgets notes",
        "engine.guarantee() states ε without what the ledger notes",
        (Patch("dpacc.step.engine", "return spent.noted(self.run_ledger.notes)", "return spent"),),
        (f"{_EVERYWHERE}::test_objects_and_files_carry_it[void-rows of a table]",),
    ),
    Bug(
        "notes left out of the JSON",
        "privacy.json and every --json state ε without what voids or qualifies it",
        (
            Patch(
                "dpacc_accounting.guarantee",
                "            **stated_notes(self.notes),\n",
                "",
            ),
        ),
        ("tests/accounting/test_guarantee.py::test_json_is_strict_and_complete",),
    ),
    Bug(
        "no session line",
        "a reopened ledger goes on as if it were the only copy",
        (
            Patch(
                "dpacc_accounting.ledger.writer",
                "self._notes, self._session_due = [*record.notes], True",
                "self._notes, self._session_due = [*record.notes], False",
            ),
        ),
        (
            f"{_LEDGER}::test_going_on_writes_a_session_of_its_own",
            f"{_MERGING}::test_copies_that_both_went_on_are_both_counted",
        ),
    ),
    Bug(
        "longer copy alone",
        "of copies that both went on, merging counts the longer one only",
        (
            Patch(
                "dpacc_accounting.ledger.merging",
                "    every: dict[str, Release] = {}\n",
                "    return [max(records, key=lambda each: len(each.releases)).event]\n    every: dict[str, Release] = {}\n",
            ),
        ),
        (f"{_MERGING}::test_copies_that_both_went_on_are_both_counted",),
    ),
    Bug(
        "old copies merged as new",
        "ledgers without session lines are merged by lines that only look alike",
        (Patch("dpacc_accounting.ledger.record", "return self.version > 1 and len", "return len"),),
        (f"{_MERGING}::test_old_ledgers_of_one_run_are_counted_in_full",),
    ),
    Bug(
        "another branch's ledger resumed",
        "a resume counts the steps of a ledger and does not look whose lines they are",
        (
            Patch(
                "dpacc.step.resumption",
                '        if not lines <= {*record.chain, ""}:\n',
                "        if False:\n",
            ),
        ),
        (f"{_FORKED}::test_a_ledger_that_went_on_elsewhere_is_refused[journal]",),
    ),
    Bug(
        "proof believed",
        "the doctor compares privacy.json with the ledger's last line alone",
        (
            Patch(
                "dpacc.doctor.stated",
                "    differences = list(_differences(stated_facts(record=record, ledger=name), said))\n",
                "    differences: list[str] = []\n",
            ),
        ),
        (f"{_DOCTOR}[epsilon in the proof]",),
    ),
    Bug(
        "card believed",
        "the doctor does not look at what the card says",
        (
            Patch(
                "dpacc.doctor.stated",
                "return [*_proof(folder, record), *_card(folder, record)]",
                "return _proof(folder, record)",
            ),
        ),
        (f"{_DOCTOR}[epsilon in the card]",),
    ),
    Bug(
        "any adapter is this run's",
        "the doctor takes whatever adapter lies in a run's folder",
        (
            Patch(
                "dpacc.doctor.stated",
                "healthy=found in record.saved, words=words",
                "healthy=True, words=words",
            ),
        ),
        (f"{_DOCTOR}[another run's adapter]",),
    ),
    Bug(
        "attacks of a smaller event",
        "an attack bound is taken from the curve of an event that the claim exceeds",
        (
            Patch(
                "dpacc_accounting.ledger.claims",
                "    if epsilon_of_event < claim.epsilon:\n",
                "    if False:\n",
            ),
        ),
        (
            "tests/accounting/ledger/test_claims.py::test_a_claim_that_covers_more_is_taken_at_its_word",
        ),
    ),
    Bug(
        "settings beside the ledger unsaid",
        "what a user gave beside a ledger is priced as if the ledger held it",
        (
            Patch(
                "dpacc_accounting.ledger.record", "notes=(*self.notes, said))", "notes=self.notes)"
            ),
        ),
        ("tests/accounting/ledger/test_claims.py::test_settings_beside_a_ledger_are_said",),
    ),
)
