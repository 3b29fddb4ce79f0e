"""A benchmark of federations from its configuration to its results, in turn or side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from dpacc.artifacts.document.content import Document
from dpacc.artifacts.document.html_page import html_page
from dpacc.artifacts.document.pdf_page import pdf_page
from dpacc.federated.benchmark.cells import Cell, cells_of
from dpacc.federated.benchmark.data_sets import DataSet, load_data_set
from dpacc.federated.benchmark.kept_cells import Found, KeptCells
from dpacc.federated.benchmark.partitions import Shares, dealt
from dpacc.federated.benchmark.report import report_of_benchmark
from dpacc.federated.benchmark.settings import BenchmarkConfig

_SCRATCH = "in_training"

OnCell = Callable[[Cell, Found], None]


class FederatedBenchmark:
    """Every cell of a grid, each trained once, by the project's own clients and server.

    Args:
        config: the grid.

    Attributes:
        config: the same.
        folder: where `cells.jsonl` is kept, from which a killed benchmark goes on.
        data_sets: the records, by the names in the grid.
        cells: all of them, in order.

    Raises:
        ConfigurationError: a data set cannot be read, or not be dealt to so many clients.

    ```python
    benchmark = FederatedBenchmark(config=BenchmarkConfig(
        models=("data/all-minilm-l6-v2",), data_sets=("sentences",), epsilons=(1.0, 8.0),
        clients=(4,)))
    benchmark.run()
    benchmark.generate_report(html="benchmark.html", pdf="benchmark.pdf")
    ```
    """

    def __init__(self, *, config: BenchmarkConfig) -> None:
        self.config = config
        self.folder = Path(config.output_dir) / config.name
        self.data_sets = {name: _loaded(name, config) for name in config.data_sets}
        self._shares = {
            (name, clients): self._dealt(data, clients)
            for name, data in self.data_sets.items()
            for clients in config.clients
        }
        self.cells = cells_of(config, self.data_sets)
        self._kept = KeptCells(self.folder)

    def run(self, *, on_cell: OnCell | None = None) -> list[Found]:
        """Train what was not trained before.

        Args:
            on_cell: is told of each cell once its result is on the disk.

        Raises:
            ConfigurationError: a cell cannot be trained.
        """
        missing = [cell for cell in self.cells if self._kept.find(cell) is None]
        train = partial(_train, config=self.config, scratch=self.folder / _SCRATCH)
        for cell, found in _each(missing, train, workers=self.config.workers):
            kept = self._kept.keep(cell, found)
            if on_cell is not None:
                on_cell(cell, kept)
        return self.results

    @property
    def results(self) -> list[Found]:
        """What is known of the grid's cells, in their order."""
        known = (self._kept.find(cell) for cell in self.cells)
        return [found for found in known if found is not None]

    def shares(self, *, data_set: str, clients: int) -> Shares:
        """Which of a data set's records each of so many clients holds."""
        return self._shares[data_set, clients]

    def generate_report(
        self, *, html: Path | str | None = None, pdf: Path | str | None = None
    ) -> Document:
        """Every known cell in pictures and tables; written as a page, a PDF, or both.

        Args:
            html: where the page goes.
            pdf: where the PDF goes.

        Raises:
            ConfigurationError: nothing is known yet, or a PDF cannot be made here.
        """
        from dpacc.artifacts.run_folder import write_file

        document = report_of_benchmark(
            results=self.results,
            name=self.config.name,
            holdings={
                name: (data, {n: self._shares[name, n] for n in self.config.clients})
                for name, data in self.data_sets.items()
            },
        )
        if html is not None:
            write_file(path=Path(html), content=html_page(document).encode())
        if pdf is not None:
            write_file(path=Path(pdf), content=pdf_page(document))
        return document

    def _dealt(self, data: DataSet, clients: int) -> Shares:
        own = self.config
        return dealt(data, clients=clients, partition=own.partition, alpha=own.alpha, seed=own.seed)


def _each(
    cells: Sequence[Cell], train: Callable[[Cell], Found], *, workers: int
) -> Iterator[tuple[Cell, Found]]:
    """Each cell with its result, as soon as it is there."""
    if workers == 1:
        yield from ((cell, train(cell)) for cell in cells)
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
        asked: dict[Future[Found], Cell] = {pool.submit(train, cell): cell for cell in cells}
        try:
            for done in as_completed(asked):
                yield asked[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _train(cell: Cell, *, config: BenchmarkConfig, scratch: Path) -> Found:
    """One cell, in whichever process; what it shares with the last one is not computed anew."""
    import torch

    from dpacc.federated.benchmark.lab import Bench
    from dpacc.federated.benchmark.training import train_cell

    if config.workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.workers))
    bench = Bench(
        cell=cell,
        data=_loaded(cell.data_set, config),
        folder=scratch / cell.key[:16],
        public=_activations(cell.shared["base"], cell.data_set, cell.shared["lora_top_layers"]),
    )
    return train_cell(bench)


@lru_cache(maxsize=8)
def _loaded(name: str, config: BenchmarkConfig) -> DataSet:
    return load_data_set(name, config=config)


@lru_cache(maxsize=1)
def _activations(base: str, data_set: str, top_layers: int) -> dict[str, Any]:
    """Those beneath the last cell's adapter, of its data; they are filled as they become known."""
    del base, data_set, top_layers
    return {}
