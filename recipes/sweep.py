"""Try settings side by side, and keep the best: on private data within one budget.

    python recipes/sweep.py --config recipes/configs/sweep/sentiment.yaml

Each entry of `vary` names a setting and its values, as in "learning_rate=1e-3 3e-3". On private
data, a secret random number of trials (geometric, `trials` on average) draw one combination each,
only the best on held-out data is kept, and the noise is such that the whole search is private
within ε and δ. How long it takes tells how many trials there were: let nobody watch. With
`data_is_public` every combination is run and reported; a search that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc.cli import terminal
from dpacc.config import Metric, TrainingConfig
from dpacc.errors import ConfigurationError
from dpacc.settings import read_settings, setting

_USAGE = "python recipes/sweep.py --config FILE.yaml [settings]"
# What a trial's guarantee depends on is the same in all trials of a private search.
_OF_THE_PLAN = ("epsilon", "delta", "expected_batch_size", "epochs", "steps", "noise", "unit_field")
# What the data and the base depend on is read once.
_READ_ONCE = ("model", "train_data", "held_out_data", "task", "max_length", "dtype", "quantization")

Cell = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SweepConfig(TrainingConfig):
    """The settings of every trial, and what to vary."""

    vary: tuple[str, ...] = setting('Settings and their values, as in "lora_rank=4 8 16".')
    trials: float = setting("How many there are on average, on private data.", default=10.0)
    data_is_public: bool = setting(
        "Whether nobody's privacy depends on which settings win: all are run and shown.",
        default=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to compare trials on: name it with --held_out_data")
        if self.unit_field is not None:
            raise ConfigurationError("a sweep's unit is the example; leave unit_field out")
        for name in self.cells()[0]:
            if name in _READ_ONCE:
                raise ConfigurationError(f"{name} cannot be varied: run a sweep for each")
            if name in _OF_THE_PLAN and not self.data_is_public:
                raise ConfigurationError(
                    f"{name} cannot be varied in a private search, which has one budget; leave it "
                    "out of vary, or set --data_is_public true if it is"
                )

    def cells(self) -> list[Cell]:
        """Every combination of the varied settings."""
        values: dict[str, list[str]] = {}
        for entry in self.vary:
            name, equals, listed = entry.partition("=")
            if not equals or not listed.split():
                raise ConfigurationError(f'vary={entry!r} must read "setting=value value ..."')
            values[name.strip()] = listed.split()
        return [
            dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())
        ]


def main(arguments: Sequence[str]) -> None:
    """Read the settings, search, and show what was found."""
    config = read_settings(kind=SweepConfig, arguments=arguments, usage=_USAGE)
    cells = config.cells()
    # Each combination is read like any configuration, and refused before anything is computed.
    settings = [
        read_settings(kind=SweepConfig, arguments=[*arguments, *_overrides(cell)]) for cell in cells
    ]
    search = _search_public_data if config.data_is_public else _search_private_data
    search(config, list(zip(cells, settings, strict=True)))


def _overrides(cell: Cell) -> list[str]:
    return [f"--{name}={value}" for name, value in cell.items()]


def _search_private_data(config: SweepConfig, options: list[tuple[Cell, SweepConfig]]) -> None:
    """A random number of random trials; the best one's adapter, and one guarantee for all."""
    from dpacc_accounting import Ledger, read_ledger, statement

    from dpacc.artifacts import new_run_folder, save_run
    from dpacc.chart import Measurement
    from dpacc.search import PrivateSearch
    from dpacc.trials import Bench

    bench = Bench(config)
    search = PrivateSearch.calibrate(plan=bench.plan_of(config=config), mean_trials=config.trials)
    folder = new_run_folder(output_dir=config.output_dir, name=config.name)
    # The whole search is charged before its first trial, and so is one that never ends.
    with Ledger.open(path=folder / "ledger.jsonl", plan=search.plan.to_json()) as ledger:
        ledger.charge(step=0, event=search.event)
    drawn = search.draw_trials(options)
    best: tuple[float, Cell, SweepConfig, dict[str, float], Any] | None = None
    # Neither how many trials there are nor how they do is shown: only the best is released.
    with terminal.at_work("searching"):
        for cell, settings in drawn:
            figures, adapter = bench.run(config=settings, plan=search.plan)
            if best is None or _merit(figures) > best[0]:
                best = (_merit(figures), cell, settings, figures, adapter)
    assert best is not None
    _, cell, settings, figures, adapter = best
    record = read_ledger(path=folder / "ledger.jsonl")
    metric: Metric = "perplexity" if "accuracy" not in figures else "accuracy"
    last = Measurement(
        step=search.plan.steps,
        epsilon=search.guarantee().epsilon,
        quality=figures[metric],
        metric=metric,
    )
    save_run(
        folder=folder,
        model=bench.adapted(config=settings, adapter=adapter),
        config=settings,
        plan=search.plan,
        guarantee=search.guarantee(),
        statement=statement(plan=record.plan, record=record, guarantee=search.guarantee()),
        ledger_head=record.head,
        measurements=[last],
    )
    facts = [*cell.items(), *((name, f"{value:.4g}") for name, value in figures.items())]
    facts += [
        ("the whole search", str(search.guarantee())),
        ("noise multiplier σ", f"{search.plan.noise_multiplier:g}"),
        ("saved in", str(folder)),
    ]
    terminal.show_facts(title="The best of a private search", facts=facts)


def _search_public_data(config: SweepConfig, options: list[tuple[Cell, SweepConfig]]) -> None:
    """Every combination once, each result on disk as soon as it is there."""
    from dpacc.trials import Bench

    folder = Path(config.output_dir) / config.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = [json.loads(line) for line in lines]
    bench = Bench(config)
    for cell, settings in terminal.tracked(options, message="trials"):
        if any(result["settings"] == cell for result in known):
            continue
        started = time.monotonic()
        plan = bench.plan_of(config=settings)
        figures, _ = bench.run(config=settings, plan=plan)
        spent = {"epsilon": plan.guarantee().epsilon, "noise_multiplier": plan.noise_multiplier}
        result = {"settings": cell, **figures, **spent, "seconds": time.monotonic() - started}
        known.append(result)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
    shown = [name for name in ("accuracy", "macro F1", "perplexity") if name in known[0]]
    names = list(known[0]["settings"])
    ranked = sorted(known, key=_merit, reverse=True)
    rows = [
        [*result["settings"].values(), *(f"{result[name]:.4g}" for name in shown)]
        for result in ranked
    ]
    terminal.show_table(
        title=f"{len(rows)} trials, best first", columns=[*names, *shown], rows=rows
    )
    terminal.say(f"results in {path}")


def _merit(figures: dict[str, Any]) -> float:
    """Larger is better."""
    return float(figures.get("accuracy", -figures.get("perplexity", 0.0)))


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
