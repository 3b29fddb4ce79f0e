"""Compare federations: models × data sets × ε × numbers of clients × ways to average.

    python recipes/fetch_federation.py
    python recipes/fetch_shakespeare.py
    python recipes/benchmark.py --config recipes/configs/benchmark/two_data_sets.yaml

Every cell is a federation of the project's own clients, each with its noise, ledger and budget, on
public data that were dealt to them by owner, label, quantity or kind; beside it stand each client
alone and everything in one place, at the same ε. What is trained is kept by its whole configuration
in `cells.jsonl`: a killed benchmark goes on, and a longer grid trains what is new. In the end there
is a report, as a page and as a PDF. Copy this file and edit it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.cli import terminal
from dpacc.federated.benchmark.outcomes import epsilon_of, meaning, notes_of, shown
from dpacc.federated.benchmark.settings import BenchmarkConfig
from dpacc.recipe.settings import read_settings

if TYPE_CHECKING:
    from dpacc.federated.benchmark.cells import Cell
    from dpacc.federated.benchmark.kept_cells import Found
    from dpacc.federated.benchmark.suite import FederatedBenchmark

_USAGE = "python recipes/benchmark.py --config FILE.yaml [settings]"


def main(arguments: Sequence[str]) -> None:
    """Read the settings, train what is missing, and write the report."""
    config = read_settings(kind=BenchmarkConfig, arguments=arguments, usage=_USAGE)
    from dpacc.federated.benchmark.suite import FederatedBenchmark

    benchmark = FederatedBenchmark(config=config)
    known = len(benchmark.results)
    terminal.say(f"{len(benchmark.cells)} cells, {known} of them known, folder {benchmark.folder}")
    benchmark.run(on_cell=show_cell)
    show_table(benchmark)
    write_report(benchmark)


def show_cell(cell: Cell, found: Found) -> None:
    """A line on a cell that has just been trained."""
    terminal.say(f"{cell.words}: {found['metric']} {worth(found)}, {found['seconds']:.0f} s")


def show_table(benchmark: FederatedBenchmark) -> None:
    """Every cell, with the ε that its ledgers hold."""
    terminal.show_table(
        title=f"Held-out quality with its standard error\n{meaning(benchmark.results)}",
        columns=["model", "data", "ε", "way", "clients", "average", "quality"],
        rows=[row_of(found) for found in benchmark.results],
    )
    for note in notes_of(benchmark.results):
        terminal.say(note.text)


def row_of(found: Found) -> list[str]:
    """A cell's choices, what it cost, and what it is worth."""
    cell = found["cell"]
    rule = cell["aggregation"] if cell["way"] == "federated" else ""
    names = [Path(cell[name]).stem for name in ("model", "data_set")]
    return [*names, epsilon_of(found), cell["way"], str(cell["clients"]), rule, worth(found)]


def worth(found: Found) -> str:
    """A quality with its standard error."""
    return shown(found["quality"], found["error"], metric=found["metric"])


def write_report(benchmark: FederatedBenchmark) -> None:
    """A page and a PDF, beside the cells."""
    page, pdf = (benchmark.folder / f"report.{kind}" for kind in ("html", "pdf"))
    benchmark.generate_report(html=page, pdf=pdf)
    terminal.say(f"wrote {page} and {pdf}")


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
