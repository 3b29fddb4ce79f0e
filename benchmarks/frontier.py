"""Perplexity and accuracy per epsilon where there is room: dpacc and Opacus, and what limits them.

    python recipes/fetch_demo.py && python recipes/fetch_benchmarks.py
    python benchmarks/frontier.py main --task chats

`main` finds each row's learning rate at each epsilon on the validation texts, then trains it with
three seeds and looks at the held-out ones. `limits` changes one thing of a cell at a time, on the
validation texts. `try` does one run as told. Each result is kept as soon as it is there, and a
later call goes on; `show` prints what there is. The texts are public: nothing is charged for
choosing. Needs `pip install opacus==1.6.0`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from cached_states import Result
from frontier_plans import EPSILONS, RATES, ROWS, SEEDS, cell, limits, widened
from frontier_tasks import Task, load_task
from kept_results import KeptResults
from upper_layers import MODEL
from utility_contenders import Run, train

from dpacc.layers.dynamic_rank import keep_first

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs/frontier"
RESULTS = ROOT / "benchmarks/results/frontier.jsonl"
SIZES = {
    "chats": (2_048, 6),
    "reviews": (2_048, 6),
    "openings": (12_288, 6),
    "sentiment": (2_048, 1),
    "endings": (4_096, 1),
    "sentences": (4_608, 1),
    "emails": (2_048, 1),
}
"""Of each task: how many texts are learned, and how many layers adapted."""

PARTS = VALIDATION, HELD_OUT = "validation", "held_out"
_SURELY = 2.0


class Bench:
    """A task, and the results that are there.

    Args:
        task: which.
        layers: how many are adapted.
        results: where they are kept.
    """

    def __init__(self, *, task: Task, layers: int, results: KeptResults) -> None:
        self._task, self._layers, self._results = task, layers, results
        self._base: Any = task.base

    @property
    def learned(self) -> int:
        """N."""
        return len(self._task.parts["train"])

    def result(self, run: Run, *, cuts: Sequence[int] = ()) -> Result:
        """What a run is worth on both parts; one that is known is not run again.

        Args:
            run: how.
            cuts: lower ranks, largest first, at which its adapter is measured as well.
        """
        asked: dict[str, Any] = {"task": self._task.name, "layers": self._layers}
        asked |= {"cuts": [*cuts]} if cuts else {}
        known = self._results.find(run, **asked)
        if known is not None:
            return known
        started = time.monotonic()
        trained = train(
            run,
            base=self._base,
            texts=self._task.texts,
            rows=self._task.texts.only(self._task.parts["train"]),
            public=self._task.public,
        )
        found = {part: self._measured(trained.model, part) for part in PARTS}
        for rank in cuts:
            keep_first(model=trained.model, rank=rank)
            found |= {at_rank(p, rank): self._measured(trained.model, p) for p in PARTS}
        self._base = trained.base()
        self._base.requires_grad_(False)
        told = {
            "seconds": round(time.monotonic() - started, 1),
            "noise_multiplier": round(trained.noise_multiplier, 5),
        }
        return self._results.keep(run, {**found, **told}, **asked)

    def untrained(self) -> Result:
        """The base as it is, on the held-out texts."""
        return self._measured(self._base, HELD_OUT)

    def better(self, ours: Result, theirs: Result) -> bool:
        """Whether one result is the better."""
        gain = ours[self._task.measure] - theirs[self._task.measure]
        return bool(gain > 0 if self._task.rising else gain < 0)

    def best(self, row: Run, epsilon: float | None, rates: Sequence[float] = ()) -> Run:
        """The row at the learning rate that does best on the validation texts.

        Args:
            row: what is run.
            epsilon: none is without noise and clipping.
            rates: only these, and none beyond an end that is best.
        """
        found: dict[float, Result] = {}

        def look(rate: float) -> None:
            run = cell(row, epsilon=epsilon, learned=self.learned, rate=rate)
            found[rate] = self.result(run)[VALIDATION]
            print(f"  ε {epsilon or '∞'}, rate {rate:g}: {shown([found[rate]])}", flush=True)

        for rate in rates or RATES:
            look(rate)
        while True:
            best = min(found)
            for rate in found:
                best = rate if self.better(found[rate], found[best]) else best
            beyond = None if rates else widened(best, tuple(found))
            if beyond is None or beyond in found:
                return cell(row, epsilon=epsilon, learned=self.learned, rate=best)
            look(beyond)

    def _measured(self, model: Any, part: str) -> Result:
        rows = self._task.texts.only(self._task.parts[part])
        return self._task.texts.measured(model, rows)


@click.group()
@click.option("--folder", default=str(FOLDER), show_default=True, help="Where states are kept.")
@click.option("--results", default=str(RESULTS), show_default=True, help="Where results are kept.")
@click.option("--task", type=click.Choice(list(SIZES)), default="chats", show_default=True)
@click.option("--model", default=MODEL.name, show_default=True, help="The base, a folder in data/.")
@click.option("--texts", type=int, help="How many are learned.  [default: the task's]")
@click.option("--layers", type=int, help="How many top layers adapt.  [default: the task's]")
@click.option("--held-out", default=4_000, show_default=True, help="Texts at most.")
@click.option("--validation", default=500, show_default=True, help="Texts at most.")
@click.pass_context
def main(context: click.Context, folder: str, results: str, **asked: Any) -> None:
    """Compare perplexity or accuracy per epsilon."""
    torch.set_num_threads(1)
    kept = KeptResults(Path(results))
    name = asked["task"]
    texts, layers = (
        asked[each] or most for each, most in zip(("texts", "layers"), SIZES[name], strict=True)
    )

    def bench() -> Bench:
        task = load_task(
            name,
            model=asked["model"],
            layers=layers,
            texts=texts,
            held_out=asked["held_out"],
            validation=asked["validation"],
            folder=Path(folder),
        )
        return Bench(task=task, layers=layers, results=kept)

    context.obj = {"bench": bench, "kept": kept, "rows": ROWS[name]}


@main.command("main")
@click.option("--row", "rows", multiple=True, help="Only these; by default all.")
@click.option("--epsilon", "epsilons", multiple=True, help="Only these, such as 8 or inf.")
@click.option("--rate", "rates", type=float, multiple=True, help="Only these, none beyond.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.pass_obj
def main_cells(
    told: dict[str, Any],
    rows: tuple[str, ...],
    epsilons: tuple[str, ...],
    rates: tuple[float, ...],
    seeds: int,
) -> None:
    """Every row at every epsilon, three seeds each, on the held-out texts."""
    bench: Bench = told["bench"]()
    print(f"untrained: {shown([bench.untrained()])}", flush=True)
    for epsilon in [_epsilon(each) for each in epsilons] or EPSILONS:
        found: dict[str, list[Result]] = {}
        for row in rows or told["rows"]:
            run = bench.best(told["rows"][row], epsilon, rates)
            runs = [replace(run, seed=seed) for seed in range(seeds)]
            found[row] = [bench.result(each)[HELD_OUT] for each in runs]
            line = f"ε {epsilon or '∞'} {row}, rate {run.learning_rate:g}: {shown(found[row])}"
            print(line, flush=True)
        for row in [row for row in found if "dpacc" in row and "Opacus" in found]:
            print(
                f"ε {epsilon or '∞'} {row} ahead of Opacus by {lead(found[row], found['Opacus'])}"
            )


@main.command("limits")
@click.option("--row", default="dpacc, lora", show_default=True)
@click.option("--epsilon", default=8.0, show_default=True)
@click.option("--rate", "rates", type=float, multiple=True, default=RATES, show_default=True)
@click.option("--only", multiple=True, help="Only changes that contain this.")
@click.pass_obj
def one_change_each(
    told: dict[str, Any],
    row: str,
    epsilon: float,
    rates: tuple[float, ...],
    only: tuple[str, ...],
) -> None:
    """A row's cell at one epsilon with one thing changed, each at every rate; validation texts."""
    bench: Bench = told["bench"]()
    runs = [
        (name, run)
        for rate in rates
        for name, run in limits(
            told["rows"][row], epsilon=epsilon, learned=bench.learned, rate=rate
        ).items()
        if not only or any(part in name for part in only)
    ]
    for name, run in sorted(runs, key=lambda each: each[0]):
        found = bench.result(run)[VALIDATION]
        print(f"{name}, rate {run.learning_rate:g}: {shown([found])}", flush=True)


@main.command("try")
@click.option("--row", default="dpacc, lora", show_default=True)
@click.option("--epsilon", default="8", show_default=True, help="A number, or inf.")
@click.option("--rate", default=3e-3, show_default=True)
@click.option("--change", default="{}", help="Of the run, as JSON, such as its `plan`.")
@click.option("--cut", "cuts", type=int, multiple=True, help="Measure at this lower rank, too.")
@click.pass_obj
def one_run(
    told: dict[str, Any],
    row: str,
    epsilon: str,
    rate: float,
    change: str,
    cuts: tuple[int, ...],
) -> None:
    """One run of a row with what `--change` says; a change of `batch` changes the steps, too."""
    bench: Bench = told["bench"]()
    changes = json.loads(change)
    base = told["rows"][row]
    base = replace(base, batch=changes.pop("batch", base.batch))
    run = cell(base, epsilon=_epsilon(epsilon), learned=bench.learned, rate=rate)
    run = replace(run, **changes)
    cuts = tuple(sorted(cuts, reverse=True))
    found = bench.result(run, cuts=cuts)
    print(f"{asdict(run)}: {shown([found[VALIDATION]])}")
    for rank in cuts:
        print(f"  cut to rank {rank}: {shown([found[at_rank(VALIDATION, rank)]])}")


def at_rank(part: str, rank: int) -> str:
    """The name of what an adapter that is cut to a rank is worth."""
    return f"{part} at rank {rank}"


@main.command("show")
@click.pass_obj
def show(told: dict[str, Any]) -> None:
    """Every kept result, a line for each cell."""
    for line in table(list(told["kept"])):
        print(line)


def table(results: Sequence[Result]) -> Iterator[str]:
    """Task, ε, row and what it is worth, over seeds."""
    cells: dict[tuple[Any, ...], list[Result]] = {}
    for each in results:
        told = {name: value for name, value in each["run"].items() if name != "seed"}
        key = (each["task"], each["layers"], json.dumps(told, sort_keys=True))
        cells.setdefault(key, []).append(each)
    for (task, layers, told), found in cells.items():
        parts = (
            f"{part} {shown([each[part] for each in found])}" for part in (VALIDATION, HELD_OUT)
        )
        yield f"{task}, {layers} layers, {told}: {'; '.join(parts)}"


def shown(results: Sequence[Result]) -> str:
    """Mean, with the standard deviation over seeds where there are several."""
    measure, unit = ("accuracy", 100.0) if "accuracy" in results[0] else ("perplexity", 1.0)
    values = [unit * each[measure] for each in results]
    losses = [each["loss"] for each in results]
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{measure} {np.mean(values):.2f}{spread}, loss {np.mean(losses):.4f}"


def lead(ours: Sequence[Result], theirs: Sequence[Result]) -> str:
    """How much better, with its standard error over blocks of texts, which both saw.

    In points of accuracy; of perplexity in percent, from the difference of the loss.
    """
    ahead = per_block(ours) - per_block(theirs)
    sign = 1.0 if "accuracy" in ours[0] else -1.0
    error = ahead.std(ddof=1) / math.sqrt(len(ahead))
    unit = "points" if sign > 0 else "% of perplexity"
    sure = "" if abs(ahead.mean()) >= _SURELY * error else ", less than two errors"
    return f"{100 * sign * ahead.mean():+.2f} ± {100 * error:.2f} {unit}{sure}"


def per_block(results: Sequence[Result]) -> np.ndarray:
    """The mean of what was summed in each block, over seeds, [blocks]."""
    sums, counts = np.moveaxis(np.array([each["blocks"] for each in results]), 2, 0)
    mean: np.ndarray = (sums / counts).mean(axis=0)
    return mean


def _epsilon(said: str) -> float | None:
    value = float(said)
    return None if math.isinf(value) else value


if __name__ == "__main__":
    main()
