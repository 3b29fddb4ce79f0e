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
        "ties decided by the coins",
        "canaries of equal scores are ordered by who is in, so that scores that say nothing accuse",
        (
            Patch(
                "dpacc.audit.verdict",
                'order = np.argsort(scores, kind="stable")',
                "order = np.lexsort((included, scores))",
            ),
        ),
        (f"{DPACC}/audit/test_verdict.py::test_scores_that_are_all_alike_prove_nothing",),
    ),
)
