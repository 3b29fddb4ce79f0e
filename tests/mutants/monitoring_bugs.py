"""Mistakes of what watches a run's utility, and of what compares federations."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_MONITOR = f"{DPACC}/federated/monitoring/test_utility_monitor.py"
_TRAINING = f"{DPACC}/federated/benchmark/test_training.py"
_FROZEN = f"{DPACC}/layers/test_frozen_activations.py"

MONITORING_BUGS = (
    Bug(
        "monitor looks before it says so",
        "a metric of private data is computed and recorded, and no ledger says that it was",
        (
            Patch(
                "dpacc.federated.monitoring.utility_monitor",
                "        self.note_private(engine)\n        spent",
                "        spent",
            ),
        ),
        (f"{_MONITOR}::test_a_private_metric_is_in_the_ledger_before_it_is_computed",),
    ),
    Bug(
        "nothing is said at no steps",
        "before the first step a metric of private data stands beside an ε of 0 without a note",
        (
            Patch(
                "dpacc.federated.monitoring.utility_monitor",
                "if engine.steps_charged or qualified else None",
                "if engine.steps_charged else None",
            ),
        ),
        (f"{_MONITOR}::test_a_private_metric_is_in_the_ledger_before_it_is_computed",),
    ),
    Bug(
        "benchmark leaves out the notes",
        "a benchmark states the ε of a cell without what voids or qualifies it at some client",
        (
            Patch(
                "dpacc.federated.benchmark.training",
                "return worst.noted([note for each in stated for note in each.notes])",
                "return worst",
            ),
        ),
        (f"{_TRAINING}::test_the_dearest_client_is_stated_with_the_notes_of_all",),
    ),
    Bug(
        "activations outlive their owner",
        "activations of private examples stay in memory after a client has closed, for the next",
        (
            Patch(
                "dpacc.layers.frozen_activations",
                "public: MutableMapping[str, Tensor] | None = None,",
                "public: MutableMapping[str, Tensor] | None = {},",
            ),
        ),
        (f"{_FROZEN}::test_nothing_of_private_examples_outlives_them",),
    ),
    Bug(
        "activations with a name",
        "on Windows, which removes no file in use, private activations outlive a killed run",
        (Patch("dpacc.layers.frozen_activations", 'if sys.platform == "win32":', "if False:"),),
        (f"{_FROZEN}::test_where_a_file_keeps_its_name_nothing_is_written",),
    ),
)
