"""Mistakes of trials on public records, by which a private federation is then set up."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_TRIALS = f"{DPACC}/federated/trials"
_WORTH = f"{_TRIALS}/test_worth_taking.py"

TRIAL_BUGS = (
    Bug(
        "a trial of another epsilon",
        "every client of a trial spends the largest ε, so that a strict one is promised too much",
        (
            Patch(
                "dpacc.federated.trials.one_trial",
                "epsilon=trial.budgets[name],",
                "epsilon=max(trial.budgets.values()),",
            ),
        ),
        (f"{_TRIALS}/test_one_trial.py::test_a_trial_keeps_each_clients_budget_and_is_run_once",),
    ),
    Bug(
        "measured on what was trained on",
        "records that a trial is measured on are dealt to its clients as well",
        (
            Patch(
                "dpacc.federated.trials.public_shares",
                "aside, rest = tuple(lines[:held_out]), lines[held_out:]",
                "aside, rest = tuple(lines[:held_out]), lines[:]",
            ),
        ),
        (
            f"{_TRIALS}/test_public_shares.py::"
            "test_of_one_file_clients_and_held_out_records_are_apart",
        ),
    ),
    Bug(
        "each candidate judged alone",
        "of many candidates one that passes by chance is named as often as there are candidates",
        (
            Patch(
                "dpacc.federated.trials.worth_taking",
                "needed = 1 - (1 - confidence) / len(expectations)",
                "needed = confidence",
            ),
        ),
        (
            f"{_WORTH}::test_the_fewest_bytes_that_reach_the_target_are_named",
            f"{_WORTH}::test_a_target_that_nobody_reaches_is_seldom_claimed",
        ),
    ),
    Bug(
        "no spread, no doubt",
        "figures that no chance has moved yet are taken for certain",
        (
            Patch(
                "dpacc.federated.trials.worth_taking",
                "sure = None if target is None else 0.0",
                "sure = None if target is None else 1.0",
            ),
        ),
        (f"{_WORTH}::test_figures_without_a_spread_are_sure_of_nothing",),
    ),
)
