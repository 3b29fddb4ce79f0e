"""Mistakes by which an audit proves what is not so, or overlooks what is."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_LAST_ADAPTER = f"{DPACC}/audit/test_last_adapter.py"

AUDIT_BUGS = (
    Bug(
        "coins in the score",
        "canaries that were left out are scored as they stand in the data, where they teach nothing",
        (
            Patch(
                "dpacc.audit.last_adapter",
                "        norms = self._directions.norm(dim=1, keepdim=True)\n",
                "        norms = self._directions.norm(dim=1, keepdim=True).clamp(min=1e-9)\n",
            ),
            Patch(
                "dpacc.audit.text_canaries",
                '{**stands, "labels": text["labels"]} for',
                "{**stands} for",
            ),
        ),
        (f"{_LAST_ADAPTER}::test_scores_know_no_coin_but_through_the_adapter",),
    ),
    Bug(
        "one run counted twice",
        "an audit takes one run's file of scores twice, and its coins for twice as many",
        (
            Patch(
                "dpacc.audit.records",
                'one["scores"] == other["scores"] for',
                'one["scores"] is other["scores"] for',
            ),
        ),
        (
            "tests/cli/test_audit.py::test_runs_that_are_not_one_audit_are_refused[fields1-given twice]",
        ),
    ),
    Bug(
        "guesses chosen by the coins",
        "an audit makes as many guesses as turn out best, and accuses honest trainers",
        (
            Patch(
                "dpacc.audit.verdict",
                "    made = best_number_of_guesses(canaries=len(scores), mu=claim.mu, confidence=each)\n",
                "    made = max(\n"
                "        (2, 4, 6, 8, 12, 16, 24, 32, 48, 60),\n"
                "        key=lambda n: one_run_mu(\n"
                "            guesses=guess_extremes(included=included, scores=scores, made=n),\n"
                "            confidence=each,\n"
                "        ),\n"
                "    )\n",
            ),
        ),
        (
            f"{DPACC}/audit/test_verdict.py"
            "::test_an_honest_trainer_is_accused_no_more_often_than_stated",
        ),
    ),
)
