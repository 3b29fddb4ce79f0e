"""Bugs of what a deployed federation's sides are told, and of what they keep between runs."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_PHASES = f"{DPACC}/federated/clients/test_earlier_phases.py"
_KEPT = f"{DPACC}/federated/deployment/test_final_adapter.py"
_SIMULATED = f"{DPACC}/federated/deployment/test_simulated_nodes.py"
_FINAL = "dpacc.federated.deployment.final_adapter"
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
    Bug(
        "base of the finished adapter",
        "the adapter that a node keeps names whatever model its server chose, code and all",
        (Patch(_FINAL, '"base_model_name_or_path": base,', "**said,"),),
        (f"{_KEPT}::test_nothing_that_names_a_model_or_code_is_kept",),
    ),
    Bug(
        "finished adapter over data",
        "a node exchanges whatever folder it was told for what its server sends, data and all",
        (Patch(_FINAL, "<= set(FILES)", "<= {each.name for each in folder.iterdir()}"),),
        (f"{_KEPT}::test_a_folder_with_anything_else_is_not_exchanged",),
    ),
    Bug(
        "answer to the finished adapter",
        "whether a node kept the adapter, and could, is told to its server",
        (
            Patch(
                _FINAL,
                '_LOG.exception("the finished adapter was not kept")',
                "raise",
            ),
        ),
        (f"{_KEPT}::test_every_node_answers_alike",),
    ),
    Bug(
        "a node's file of the run's choice",
        "a server's run names the file by which a deployed node reads its records and its budget",
        (
            Patch(
                "dpacc.federated.deployment.simulated_nodes",
                "if set(node_config) != NUMBERED:",
                'if "simulated-node" not in run_config:',
            ),
        ),
        (f"{_SIMULATED}::test_a_node_with_settings_of_its_own_reads_no_file_of_the_run",),
    ),
)
