"""Budgets that grant more than their total, or forget what they granted."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_ROOM = "dpacc_accounting.budget"
_TESTS = "tests/accounting/budget"

BUDGET_BUGS = (
    Bug(
        "open reservations not counted",
        "only what is committed counts: runs that have begun are granted the same ε again",
        (
            Patch(
                f"{_ROOM}.grants",
                "others = [share for share in record.shares.values() if share.run != run]",
                'others = [share for share in record.holding("committed") if share.run != run]',
            ),
        ),
        (f"{_TESTS}/test_grants.py::test_a_third_run_is_refused_where_two_fit",),
    ),
    Bug(
        "budget changed without its lock",
        "two processes are granted what is left once",
        (
            Patch(
                f"{_ROOM}.key_file",
                "        wait_for_lock(descriptor, path=path)\n",
                "",
            ),
        ),
        (f"{_TESTS}/test_key_file.py::test_a_grant_is_decided_under_one_lock",),
    ),
    Bug(
        "resumed run takes itself for another",
        "a run that goes on is counted beside its own reservation",
        (
            Patch(
                f"{_ROOM}.registry",
                'if share is None or share.state != "reserved":\n'
                "                require_covered(record=record, books=books, planned=planned)\n"
                "                require_room(record=record, run=books.run, planned=planned)",
                'if True:\n                require_room(record=record, run="", planned=planned)',
            ),
        ),
        (f"{_TESTS}/test_registry.py::test_a_resumed_run_reserves_once",),
    ),
    Bug(
        "run that goes on after its commit not asked",
        "a committed run takes its other steps although others hold the room",
        (
            Patch(
                f"{_ROOM}.registry",
                'if share is None or share.state != "reserved":',
                "if share is None:",
            ),
        ),
        (f"{_TESTS}/test_registry.py::test_a_run_that_goes_on_after_its_commit_asks_again",),
    ),
    Bug(
        "charged run given back",
        "a reservation of which steps were taken is released, and its ε granted again",
        (Patch(f"{_ROOM}.matching", "if books.releases:", "if False:"),),
        (f"{_TESTS}/test_registry.py::test_only_a_reservation_that_spent_nothing_is_given_back",),
    ),
    Bug(
        "shortened budget believed",
        "a budget that lacks its last lines grants again what they had granted",
        (
            Patch(
                f"{_ROOM}.record",
                "if key.head not in record.chain:",
                "if False:",
            ),
        ),
        (
            f"{_TESTS}/test_copies.py::test_a_shortened_budget_is_refused",
            f"{_TESTS}/test_copies.py::test_of_two_copies_of_a_budget_one_goes_on",
        ),
    ),
    Bug(
        "copied run granted twice",
        "a copy of a run's ledger goes on beside it, within one reservation",
        (
            Patch(
                f"{_ROOM}.matching",
                "if share is not None and not lines.issuperset(share.anchors):",
                "if False:",
            ),
        ),
        (f"{_TESTS}/test_copies.py::test_of_two_copies_of_a_ledger_one_goes_on",),
    ),
    Bug(
        "budget named and not asked",
        "an engine opens its ledger outside the budget that it was given",
        (
            Patch(
                "dpacc.step.run_ledger",
                "if self._budget is None or self._is_through():",
                "if True:",
            ),
        ),
        (
            f"{DPACC}/step/test_run_ledger.py"
            "::test_a_run_reserves_before_its_first_step_and_commits_after_its_last",
        ),
    ),
    Bug(
        "client's budget not asked",
        "a federation's client takes its rounds outside the budget of its data",
        (
            Patch(
                "dpacc.federated.clients.local_training",
                "            budget=config.budget,\n",
                "",
            ),
        ),
        (
            f"{DPACC}/federated/clients/test_client_budget.py"
            "::test_a_client_reserves_all_its_rounds_before_its_first_step",
        ),
    ),
)
