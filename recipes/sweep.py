"""Try settings side by side, and keep the best: on private data within one budget.

    python recipes/sweep.py --config recipes/configs/sweep/sentiment.yaml

Each entry of `vary` names a setting and its values, as in "learning_rate=1e-3 3e-3". On private
data, a secret random number of trials (geometric, `trials` on average) draw one combination each,
only the best on held-out data is kept, and the noise is such that the whole search is private
within ε and δ. How long it takes tells how many trials there were: let nobody watch. With
`data_is_public` every combination is run and reported, and drawn with `--picture`; a search that
was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import Metric, TrainingConfig
from dpacc.recipe.settings import read_settings, setting

_USAGE = "python recipes/sweep.py --config FILE.yaml [settings]"
# Base and data are read once, so that these can differ from trial to trial, and no others.
_OF_A_TRIAL = (
    *("lora_method", "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"),
    *("lora_top_layers", "cache_frozen_activations", "gradient_checkpointing", "seed"),
    *("optimizer", "learning_rate", "warmup_steps", "average_iterates", "weight_decay"),
    *("micro_batch_tokens", "per_example_gradients"),
)
# One plan, which the ledger names before the first trial, is that of a whole private search.
_OF_THE_PLAN = (
    *("epsilon", "delta", "expected_batch_size", "epochs", "steps"),
    *("max_grad_norm", "clipping", "noise"),
)
# Whatever these are, a trial is the same.
_OF_THE_SWEEP = ("name", "output_dir", "vary", "trials", "data_is_public", "picture")

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
    picture: str | None = setting(
        "File for a picture (PNG, PDF or SVG) of what held-out data says: along the axis the first "
        "setting of vary, a line for each value of the second, a panel for each of the others. "
        "null draws none.",
        default=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to compare trials on: name it with --held_out_data")
        if self.unit_field is not None:
            raise ConfigurationError("a sweep's unit is the example; leave unit_field out")
        if self.push_to_hub is not None:
            raise ConfigurationError(
                "a sweep uploads nothing: leave push_to_hub out, and train the settings it chooses "
                "with recipes/train.py"
            )
        if self.picture is not None:
            format_of(path=Path(self.picture))
        if self.picture is not None and not self.data_is_public:
            raise ConfigurationError(
                "picture shows every trial and a private search shows the best: leave it out, or "
                "set --data_is_public true if it is"
            )
        if self.allow_held_out_overlap and not self.data_is_public:
            raise ConfigurationError(
                "a private search chooses by held-out metrics, so private data cannot be among it: "
                "leave allow_held_out_overlap out, and name other held_out_data"
            )
        for name in self.cells()[0]:
            self._require_variable(name)

    def _require_variable(self, name: str) -> None:
        known = name in {field.name for field in fields(self)}
        once = known and name not in (*_OF_A_TRIAL, *_OF_THE_PLAN)
        if once or (name == "lora_top_layers" and self.cache_frozen_activations):
            raise ConfigurationError(
                f"{name} cannot be varied{'' if once else ' with cache_frozen_activations'}, for "
                "what depends on it is read once: run a sweep for each"
            )
        if name in _OF_THE_PLAN and not self.data_is_public:
            raise ConfigurationError(
                f"{name} cannot be varied in a private search, which has one plan: leave it "
                "out of vary, or set --data_is_public true if it is"
            )

    def cells(self) -> list[Cell]:
        """Every combination of the varied settings."""
        values: dict[str, list[str]] = {}
        for entry in self.vary:
            name, equals, listed = entry.partition("=")
            if not equals or not listed.split():
                raise ConfigurationError(f'vary={entry!r} must read "setting=value value ..."')
            if name.strip() in values:
                raise ConfigurationError(f"vary names {name.strip()} twice: give it all its values")
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
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        search(config, list(zip(cells, settings, strict=True)))


def _overrides(cell: Cell) -> list[str]:
    return [f"--{name}={value}" for name, value in cell.items()]


def _search_private_data(config: SweepConfig, options: list[tuple[Cell, SweepConfig]]) -> None:
    """A random number of random trials; the best one's adapter, and one guarantee for all."""
    from dpacc_accounting import Ledger, read_ledger

    from dpacc.artifacts.earlier_runs import begin_run
    from dpacc.artifacts.progress_chart import Measurement
    from dpacc.artifacts.run_folder import save_run
    from dpacc.search.private_search import PrivateSearch
    from dpacc.search.trials import Bench
    from dpacc.step.admission.starting_point import whitening_note

    bench = Bench(config)
    bench.require_adapters([settings for _, settings in options])
    search = PrivateSearch.calibrate(plan=bench.plan_of(config=config), mean_trials=config.trials)
    folder = begin_run(
        output_dir=config.output_dir,
        name=config.name,
        plan=search.plan,
        event=search.event,
        say=terminal.say,
    )
    # The whole search is charged before its first trial, and so is one that never ends.
    with Ledger.open(path=folder / "ledger.jsonl", plan=search.plan.to_json()) as ledger:
        ledger.charge(step=0, event=search.event)
        if any(settings.lora_method == "whitened" for _, settings in options):
            subject, text = whitening_note("the held-out data")
            ledger.note(subject=subject, text=text)
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
        ledger=folder / "ledger.jsonl",
        measurements=[last],
    )
    promise = search.guarantee().noted(read_ledger(path=folder / "ledger.jsonl").notes)
    facts = [*cell.items(), *((name, f"{value:.4g}") for name, value in figures.items())]
    facts += [
        ("the whole search", str(promise)),
        ("noise multiplier σ", f"{search.plan.noise_multiplier:g}"),
        ("saved in", str(folder)),
    ]
    terminal.show_facts(title="The best of a private search", facts=facts)


def _search_public_data(config: SweepConfig, options: list[tuple[Cell, SweepConfig]]) -> None:
    """Every combination once, each result on disk as soon as it is there."""
    from dpacc.artifacts.run_folder import write_file

    path = Path(config.output_dir) / config.name / "results.jsonl"
    written = _read_results(path)
    known = {_identity(each.get("configuration")): each for each in written}
    missing = [each for each in options if _identity(_configuration(each[1])) not in known]
    for result in _run_each(config, missing) if missing else ():
        known[_identity(result["configuration"])] = result
        written.append(result)
        lines = "".join(json.dumps(each) + "\n" for each in written)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path=path, content=lines.encode())
    found = [(cell, known[_identity(_configuration(settings))]) for cell, settings in options]
    _show(config, found)
    others = len(written) - len(found)
    terminal.say(f"results in {path}" + (f", with {others} of other settings" if others else ""))


def _run_each(
    config: SweepConfig, options: list[tuple[Cell, SweepConfig]]
) -> Iterator[dict[str, Any]]:
    """What each combination is, what comes of it, and what it costs."""
    from dpacc.search.trials import Bench

    bench = Bench(config, data_is_public=True)
    bench.require_adapters([settings for _, settings in options])
    plans = [bench.plan_of(config=settings) for _, settings in options]
    planned = list(zip(options, plans, strict=True))
    for (cell, settings), plan in terminal.tracked(planned, message="trials"):
        figures, _ = bench.run(config=settings, plan=plan)
        yield {
            "settings": cell,
            **figures,
            **plan.guarantee().to_json(),
            "noise_multiplier": plan.noise_multiplier,
            "configuration": _configuration(settings),
        }


def _show(config: SweepConfig, found: list[tuple[Cell, dict[str, Any]]]) -> None:
    """The trials of this sweep as a table, the best first, and as a picture."""
    metrics = [name for name in ("accuracy", "macro F1", "perplexity") if name in found[0][1]]
    ranked = sorted(found, key=lambda each: _merit(each[1]), reverse=True)
    terminal.show_table(
        title=f"{len(found)} {'trial' if len(found) == 1 else 'trials'}, best first",
        columns=[*found[0][0], *metrics],
        rows=[
            [*cell.values(), *(f"{result[name]:.4g}" for name in metrics)]
            for cell, result in ranked
        ],
    )
    if config.picture is not None:
        from dpacc.artifacts.run_folder import write_file
        from dpacc.search.trials_chart import draw_trials

        picture = draw_trials(
            trials=[{**cell, metrics[0]: result[metrics[0]]} for cell, result in found],
            varied=list(found[0][0]),
            metric=metrics[0],
            form=format_of(path=Path(config.picture)),
        )
        write_file(path=Path(config.picture), content=picture)
        terminal.say(f"picture in {config.picture}")


def _read_results(path: Path) -> list[dict[str, Any]]:
    """What earlier launches found, whatever their settings were."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
    except ValueError:
        raise ConfigurationError(
            f"{path} is damaged: move it away, or choose another --name"
        ) from None


def _configuration(settings: SweepConfig) -> dict[str, Any]:
    """All that a trial's result depends on."""
    return {name: each for name, each in asdict(settings).items() if name not in _OF_THE_SWEEP}


def _identity(configuration: dict[str, Any] | None) -> str:
    return json.dumps(configuration, sort_keys=True)


def _merit(figures: dict[str, Any]) -> float:
    """Larger is better; what is no number at all is worst."""
    merit = float(figures.get("accuracy", -figures.get("perplexity", 0.0)))
    return -math.inf if math.isnan(merit) else merit


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
