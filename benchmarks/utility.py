"""Accuracy per epsilon: dpacc and Opacus on prompted sentiment, and what helps.

    python recipes/fetch_demo.py && python recipes/sentiment_data.py
    python benchmarks/utility.py main

`main` first tries three learning rates of each tool at each epsilon on sentences that are neither
learned nor held out, then trains the best with three seeds and looks at the held-out sentences.
`levers` changes one thing at a time, `ranks` rank and method, on the former sentences. Each result
is on disk as soon as it is there, and a later call goes on. The sentences are public: nothing is
charged for choosing. Needs `pip install opacus==1.6.0 dp-lora==0.1.0`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from cached_states import Result
from kept_results import KeptResults
from upper_layers import MODEL, label_words, load_sentences, load_written, parts, upper_layers
from utility_chart import ranks_figure, write
from utility_contenders import Run, train
from utility_plans import (
    EPSILONS,
    METHODS,
    MIDDLE_RANK,
    RANKS,
    RATES,
    SEEDS,
    TOOLS,
    cell,
    levers,
    ranked,
)

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs/utility"


class Bench:
    """The top layers and the sentences, read once; results that are there are not computed again.

    Args:
        layers: how many of the top layers are adapted.
        folder: holds the results, and what the frozen layers make of the sentences.
    """

    def __init__(self, *, layers: int, folder: Path) -> None:
        self._sentences = load_sentences(layers=layers, folder=folder)
        self._written = load_written(layers=layers, folder=folder)
        self._base: Any = upper_layers(layers=layers, model=MODEL, words=label_words(model=MODEL))
        self._learned, self._validation, self._held_out = parts()
        self._results = KeptResults(folder / "results.jsonl")

    @property
    def validation(self) -> int:
        """How many sentences choose settings."""
        return len(self._validation)

    def result(self, run: Run, *, held_out: bool) -> Result:
        """Accuracy, loss and the sentences that were told wrongly."""
        known = self._results.find(run, held_out=held_out)
        if known is not None:
            return known
        started = time.monotonic()
        trained = train(
            run,
            base=self._base,
            texts=self._sentences,
            rows=self._sentences.only(self._learned),
            public=self._written,
        )
        result = self._measured(trained.model, held_out=held_out)
        result["seconds"] = round(time.monotonic() - started, 1)
        self._base = trained.base()
        self._base.requires_grad_(False)
        return self._results.keep(run, result, held_out=held_out)

    def untrained(self, *, held_out: bool) -> Result:
        """The base as it is."""
        return self._measured(self._base, held_out=held_out)

    def _measured(self, model: Any, *, held_out: bool) -> Result:
        rows = self._sentences.only(self._held_out if held_out else self._validation)
        return self._sentences.measured(model, rows)


def best_rate(bench: Bench, tool: str, epsilon: float | None) -> float:
    """The learning rate of the tool's three that does best on the validation sentences."""
    rates = RATES[tool]
    if len(rates) == 1:
        return rates[0]
    found = {
        rate: bench.result(cell(tool, epsilon, rate), held_out=False)["accuracy"] for rate in rates
    }
    return max(found, key=lambda rate: found[rate])


@click.group()
@click.option("--folder", default=str(FOLDER), show_default=True, help="Where results are kept.")
@click.option("--layers", default=1, show_default=True, help="How many top layers are adapted.")
@click.pass_context
def main(context: click.Context, folder: str, layers: int) -> None:
    """Compare accuracy per epsilon."""
    torch.set_num_threads(1)
    context.obj = Bench(layers=layers, folder=Path(folder))


@main.command("main")
@click.option("--tool", "tools", multiple=True, help="Only these; by default all.")
@click.pass_obj
def main_cells(bench: Bench, tools: tuple[str, ...]) -> None:
    """Both tools at every epsilon, three seeds each, on the held-out sentences."""
    untrained = bench.untrained(held_out=True)
    print(f"untrained: {_shown([untrained])}")
    for epsilon in EPSILONS:
        found = {}
        for tool in tools or TOOLS:
            if TOOLS[tool].tool == "dp-lora" and epsilon is None:
                continue
            rate = best_rate(bench, tool, epsilon)
            runs = [cell(tool, epsilon, rate, seed) for seed in SEEDS]
            found[tool] = [bench.result(run, held_out=True) for run in runs]
            gain = _difference(found[tool], [untrained])
            print(f"ε {epsilon or '∞'} {tool}, rate {rate:g}: {_shown(found[tool])}; gain {gain}")
        for tool in [tool for tool in found if "dpacc" in tool and "Opacus" in found]:
            ahead = _difference(found[tool], found["Opacus"])
            print(f"ε {epsilon or '∞'} {tool} ahead of Opacus by {ahead}", flush=True)


@main.command("levers")
@click.pass_obj
def one_lever_each(bench: Bench) -> None:
    """The cell of dpacc at ε = 1, with one thing changed, on the validation sentences."""
    print(f"untrained: {_shown([bench.untrained(held_out=False)])}")
    for name, run in levers(best_rate(bench, "dpacc, plain LoRA", 1.0)).items():
        print(f"{name}: {_shown([bench.result(run, held_out=False)])}", flush=True)


@main.command("ranks")
@click.option("--picture", type=click.Path(path_type=Path), help="Where to draw the figure.")
@click.pass_obj
def rank_by_method(bench: Bench, picture: Path | None) -> None:
    """Every rank of LoRA and FFA-LoRA at ε = 8, each method at its best rate in the middle."""
    found = {}
    for method in METHODS:
        tried = {
            rate: bench.result(ranked(method, MIDDLE_RANK, rate), held_out=False)["accuracy"]
            for rate in RATES["dpacc, plain LoRA"]
        }
        rate = max(tried, key=lambda rate: tried[rate])
        for rank in RANKS:
            found[method, rank] = bench.result(ranked(method, rank, rate), held_out=False)
        row = [_shown([found[method, rank]]) for rank in RANKS]
        print(f"{method}, rate {rate:g}: " + " | ".join(row), flush=True)
    if picture is not None:
        accuracies = {
            method: [100 * found[method, rank]["accuracy"] for rank in RANKS] for method in METHODS
        }
        drawn = ranks_figure(
            ranks=RANKS,
            accuracies=accuracies,
            untrained=100 * bench.untrained(held_out=False)["accuracy"],
            sentences=bench.validation,
        )
        write(drawn, picture)


def _shown(results: Sequence[Result]) -> str:
    """Mean accuracy and loss, with their standard deviation over seeds."""
    figures = [
        (np.mean(values), np.std(values, ddof=1) if len(values) > 1 else None)
        for values in ([100 * r["accuracy"] for r in results], [r["loss"] for r in results])
    ]
    (accuracy, spread), (loss, other) = figures
    if spread is None or other is None:
        return f"{accuracy:.1f}%, loss {loss:.3f}"
    return f"{accuracy:.1f} ± {spread:.1f}%, loss {loss:.3f} ± {other:.3f}"


def _difference(ours: Sequence[Result], theirs: Sequence[Result], sentences: int = 998) -> str:
    """Points of accuracy, with the standard error over sentences, which both saw."""
    gains = _right(ours, sentences) - _right(theirs, sentences)
    error = gains.std(ddof=1) / np.sqrt(sentences)
    return f"{100 * gains.mean():+.1f} ± {100 * error:.1f} points"


def _right(results: Sequence[Result], sentences: int) -> np.ndarray:
    """How often each sentence was told rightly over the seeds, [sentences]."""
    right = np.ones((len(results), sentences))
    for row, result in zip(right, results, strict=True):
        row[result["wrong"]] = 0
    mean: np.ndarray = right.mean(axis=0)
    return mean


if __name__ == "__main__":
    main()
