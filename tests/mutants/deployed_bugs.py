"""Bugs of what a deployed federation's sides are told, and of what they keep between runs."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_PHASES = f"{DPACC}/federated/clients/test_earlier_phases.py"
_EARLIER = "dpacc.federated.clients.earlier_phases"

DEPLOYED_BUGS = (
    Bug(
        "earlier phases forgotten",
        "a client whose owner added records spends its whole epsilon again on those that it had",
        (
            Patch(
                _EARLIER,
                "if not self._phases:\n            return self._whole",
                "if True:\n            return self._whole",
            ),
        ),
        (f"{_PHASES}::test_the_next_phase_takes_the_added_records_at_what_is_left",),
    ),
    Bug(
        "all of delta for each phase",
        "every phase of a client's is priced at its whole delta, and their sum is beyond it",
        (Patch(_EARLIER, "delta=dp.delta / 2**number", "delta=dp.delta"),),
        (f"{_PHASES}::test_shares_of_delta_never_exceed_it",),
    ),
    Bug(
        "an earlier phase by what it spent",
        "how long a phase went on follows from what it released, and its price is taken for fixed",
        (
            Patch(
                _EARLIER,
                "plan.guarantee(delta=delta)",
                "plan.guarantee(delta=delta, steps=len(ledger.releases))",
            ),
        ),
        (f"{_PHASES}::test_a_phase_counts_with_its_whole_plan",),
    ),
    Bug(
        "a phase after the next",
        "an earlier phase goes on, and chooses, after the next one's noise was sized for the rest",
        (
            Patch(
                "dpacc.federated.deployment.node_settings",
                'if (beyond / "ledger.jsonl").exists():',
                "if False:",
            ),
        ),
        (f"{_PHASES}::test_a_phase_that_is_over_does_not_go_on",),
    ),
    Bug(
        "a phase around a standstill",
        "a node that failed among its records answers again once its phase has another number",
        (Patch(_EARLIER, "Standstill(folder).refuse_to_go_on()", "pass"),),
        (f"{_PHASES}::test_a_node_that_failed_does_not_go_on_in_another_phase",),
    ),
)
