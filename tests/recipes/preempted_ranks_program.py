"""Two ranks of the training recipe, of which the second alone is told to stop, then two that go on.

python -m tests.recipes.preempted_ranks_program MATERIAL RUNS
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

from tests.forked_ranks import fork_ranks
from tests.recipes.training import RECIPE, as_arguments, settings
from tests.scripts import load_script

THIRD = 3
IMPORTED_LATE = (
    "dpacc.artifacts.run_folder",
    "dpacc.recipe.assembly",
    "dpacc.recipe.training_data",
    "dpacc.step.engine",
    "matplotlib.figure",
    "transformers.models.llama.modeling_llama",
)
"""What every rank would otherwise import for itself."""


def main(material: Path, runs: Path) -> None:
    """Print how the ranks ended: the first time, and the second."""
    arguments = as_arguments(
        settings(material, runs) | {"resume": "auto", "checkpoint_every": 100, "steps": 5}
    )
    recipe = load_script(RECIPE)
    for module in IMPORTED_LATE:
        importlib.import_module(module)

    def train() -> None:
        recipe.main(arguments)

    def train_until_told() -> None:
        if os.environ["RANK"] == "1":
            signal_at_update(THIRD)
        train()

    # `survivor`: no launcher kills the others when one ends, so that each must end by itself.
    print(fork_ranks(train_until_told, ranks=2, survivor=0), flush=True)
    print(fork_ranks(train, ranks=2), flush=True)


def signal_at_update(number: int) -> None:
    """SIGTERM comes to this process amid an update."""
    from dpacc.ranks.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def told(*given: object) -> None:
        updates.append(given)
        if len(updates) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        update(*given)

    Replicated.update = told  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
