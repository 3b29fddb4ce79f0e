"""Ways in which a dashboard could flatter, or tell whom it should not."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

_ROOM, _TESTS = "dpacc.cli.dashboard", "tests/cli/dashboard"

DASHBOARD_BUGS = (
    Bug(
        "record believed against its ledger",
        "the dashboard shows what privacy.json says, also where the ledger costs more",
        (
            Patch(
                f"{_ROOM}.listed_runs",
                "    return replace(run, claim=price, priced=True, problem=problem)",
                "    return replace(run, claim=run.claim or price, priced=True)",
            ),
        ),
        (f"{_TESTS}/test_listed_runs.py::test_a_record_of_less_than_the_ledger_is_contradicted",),
    ),
    Bug(
        "record of an earlier step shown",
        "ε of some steps ago stands beside the steps of now, less than dpacc spend states",
        (
            Patch(
                f"{_ROOM}.first_sight",
                'or course[-1].step != last["step"] + 1:',
                "or False:",
            ),
        ),
        (f"{_TESTS}/test_listed_runs.py::test_a_record_that_lags_behind_is_not_believed",),
    ),
    Bug(
        "fixed seed not told at first sight",
        "a run that is not private stands among a thousand without a word until it is priced",
        (
            Patch(
                f"{_ROOM}.first_sight",
                "    notes = tuple(_notes(whole)) if _NOTE in whole else ()\n",
                "    notes = ()\n",
            ),
        ),
        (
            f"{_TESTS}/test_listed_runs.py::test_at_first_sight_nothing_is_priced_and_nothing_hidden",
        ),
    ),
    Bug(
        "dashboard served to everybody",
        "whoever reaches the machine reads the names of clients and who took part",
        (
            Patch(
                f"{_ROOM}.server",
                '        "server_address": address,\n',
                '        "server_address": "0.0.0.0",\n',
            ),
        ),
        (f"{_TESTS}/test_server.py::test_it_listens_on_this_machine_and_sends_nothing",),
    ),
    Bug(
        "who took part shown where it is the secret",
        "a page names the clients of each round, whose privacy rests on that nobody knows them",
        (
            Patch(
                f"{_ROOM}.one_federation",
                "rounds=() if history is None or secret else tuple(history.rounds),",
                "rounds=() if history is None else tuple(history.rounds),",
            ),
        ),
        (
            f"{_TESTS}/test_one_federation.py"
            "::test_who_took_part_is_not_shown_where_that_is_the_secret",
        ),
    ),
    Bug(
        "saved course believed against its ledger",
        "a curve of what a file says shows less ε than the ledger that lies beside it",
        (
            Patch(
                f"{_ROOM}.utility",
                "        if least is not None and point.epsilon < least.epsilon * _LESS:",
                "        if False:",
            ),
        ),
        (f"{_TESTS}/test_utility.py::test_a_saved_course_is_held_against_the_ledger_beside_it",),
    ),
    Bug(
        "private metrics shown in a browser",
        "a page draws what a monitor computed from private data without noise",
        (
            Patch(
                f"{_ROOM}.utility",
                "        if any(note.subject == NOTE for note in notes):",
                "        if False:",
            ),
        ),
        (f"{_TESTS}/test_utility.py::test_what_was_computed_from_private_data_is_not_shown",),
    ),
    Bug(
        "exceeded budget reported as kept",
        "a report's first page is silent where the runs on a data set cost more than its total",
        (
            Patch(
                "dpacc.cli.report.data_set_budget",
                "    if not facts.within:\n        amiss.append(",
                "    if False:\n        amiss.append(",
            ),
        ),
        (
            "tests/cli/report/test_data_set_budget.py"
            "::test_an_exceeded_budget_is_said_on_the_first_page",
        ),
    ),
)
