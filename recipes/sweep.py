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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import Metric, read_settings, setting

# What is heavy is imported where it is used, so that a mistake in the settings is told at once.
if TYPE_CHECKING:
    from dpacc import PrivacyPlan
    from dpacc.search.private_search import PrivateSearch
    from dpacc.search.trials import Bench

_USAGE = "python recipes/sweep.py --config FILE.yaml [settings]"
# Base and data are read once, so that these can differ from trial to trial, and no others.
_OF_A_TRIAL = (
    *("lora_method", "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"),
    *("lora_top_layers", "cache_frozen_activations", "gradient_checkpointing"),
    *("offload_activations", "seed"),
    *("optimizer", "learning_rate", "warmup_steps", "average_iterates", "weight_decay"),
    *("micro_batch_tokens", "per_example_gradients", "kernels"),
)
# One plan, which the ledger names before the first trial, is that of a whole private search.
_OF_THE_PLAN = (
    *("epsilon", "delta", "expected_batch_size", "epochs", "steps"),
    *("max_grad_norm", "clipping", "noise"),
)
# Whatever these are, a trial is the same.
_OF_THE_SWEEP = ("name", "output_dir", "vary", "trials", "data_is_public", "picture")

Cell = dict[str, str]
Figures = dict[str, float]
Result = dict[str, Any]


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
        if self.task == "preference":
            raise ConfigurationError(
                "task=preference is trained with recipes/train.py and measured with "
                "recipes/evaluate.py; a sweep compares no answers: choose another task"
            )
        if self.held_out_data is None:
            raise ConfigurationError("nothing to compare trials on: name it with --held_out_data")
        if self.unit_field is not None:
            raise ConfigurationError("a sweep's unit is the example; leave unit_field out")
        if self.push_to_hub is not None:
            raise ConfigurationError(
                "a sweep uploads nothing: leave push_to_hub out, and train the settings it chooses "
                "with recipes/train.py"
            )
        if self.budget is not None and self.data_is_public:
            raise ConfigurationError("public data has no budget to keep: leave budget out")
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


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of the varied settings, and all settings with it."""

    cell: Cell
    config: SweepConfig


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A trial that was run: what held-out data says of it, and its adapter."""

    trial: Trial
    figures: Figures
    adapter: Any


def main(arguments: Sequence[str]) -> None:
    """Read the settings, search, and show what was found."""
    config = read_settings(kind=SweepConfig, arguments=arguments, usage=_USAGE)
    trials = read_trials(config, arguments)
    search = search_public_data if config.data_is_public else search_private_data
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        search(config, trials)


def read_trials(config: SweepConfig, arguments: Sequence[str]) -> list[Trial]:
    """Each combination, read like any configuration and refused before anything is computed."""
    return [
        Trial(
            cell=cell,
            config=read_settings(kind=SweepConfig, arguments=[*arguments, *overrides(cell)]),
        )
        for cell in config.cells()
    ]


def overrides(cell: Cell) -> list[str]:
    """The combination as command-line arguments."""
    return [f"--{name}={value}" for name, value in cell.items()]


# --- on private data ------------------------------------------------------------------------


def search_private_data(config: SweepConfig, trials: list[Trial]) -> None:
    """A random number of random trials; the best one's adapter, and one guarantee for all."""
    from dpacc.search.private_search import PrivateSearch
    from dpacc.search.trials import Bench

    bench = Bench(config)
    bench.require_adapters([trial.config for trial in trials])
    search = PrivateSearch.calibrate(plan=bench.plan_of(config=config), mean_trials=config.trials)
    folder = charge(config, search, trials)
    best = best_of(search.draw_trials(trials), bench, search.plan)
    save_best(best, bench, search, folder)
    show_best(best, search, folder)


def charge(config: SweepConfig, search: PrivateSearch, trials: list[Trial]) -> Path:
    """A run folder whose ledger holds the whole search, before its first trial.

    So a search that never ends is charged, too.
    """
    from dpacc_accounting import Budget, Ledger

    from dpacc.artifacts.earlier_runs import begin_run
    from dpacc.step.admission.starting_point import whitening_note

    folder = begin_run(
        output_dir=config.output_dir,
        name=config.name,
        plan=search.plan,
        event=search.event,
        say=terminal.say,
    )
    asked: dict[str, Any] = {"path": folder / "ledger.jsonl", "plan": search.plan.to_json()}
    with (
        Ledger.open(**asked)
        if config.budget is None
        else Budget(path=config.budget).open_ledger(**asked, planned=search.event)
    ) as ledger:
        ledger.charge(step=0, event=search.event)
        if any(trial.config.lora_method == "whitened" for trial in trials):
            subject, text = whitening_note("the held-out data")
            ledger.note(subject=subject, text=text)
    if config.budget is not None:
        Budget(path=config.budget).commit(ledgers=[folder / "ledger.jsonl"])
    return folder


def best_of(drawn: Iterable[Trial], bench: Bench, plan: PrivacyPlan) -> Outcome:
    """Run what was drawn. Neither how many trials there are nor how they do is shown."""
    best: Outcome | None = None
    with terminal.at_work("searching"):
        for trial in drawn:
            figures, adapter = bench.run(config=trial.config, plan=plan)
            if best is None or merit(figures) > merit(best.figures):
                best = Outcome(trial=trial, figures=figures, adapter=adapter)
    assert best is not None
    return best


def save_best(best: Outcome, bench: Bench, search: PrivateSearch, folder: Path) -> None:
    """The one adapter that is released, with the guarantee of the whole search."""
    from dpacc.artifacts.progress_chart import Measurement
    from dpacc.artifacts.run_folder import save_run

    metric: Metric = "perplexity" if "accuracy" not in best.figures else "accuracy"
    last = Measurement(
        step=search.plan.steps,
        epsilon=search.guarantee().epsilon,
        quality=best.figures[metric],
        metric=metric,
    )
    save_run(
        folder=folder,
        model=bench.adapted(config=best.trial.config, adapter=best.adapter),
        config=best.trial.config,
        ledger=folder / "ledger.jsonl",
        measurements=[last],
        tokenizer=bench.tokenizer,
    )


def show_best(best: Outcome, search: PrivateSearch, folder: Path) -> None:
    """Which settings won, and what the whole search cost."""
    from dpacc_accounting import read_ledger

    guarantee = search.guarantee().noted(read_ledger(path=folder / "ledger.jsonl").notes)
    facts = [
        *best.trial.cell.items(),
        *((name, f"{value:.4g}") for name, value in best.figures.items()),
        ("the whole search", str(guarantee)),
        ("noise multiplier σ", search.plan.noise_in_words),
        ("saved in", str(folder)),
    ]
    terminal.show_facts(title="The best of a private search", facts=facts)


# --- on public data -------------------------------------------------------------------------


def search_public_data(config: SweepConfig, trials: list[Trial]) -> None:
    """Every combination once, each result on disk as soon as it is there."""
    path = Path(config.output_dir) / config.name / "results.jsonl"
    results = read_results(path)
    known = by_configuration(results)
    missing = [trial for trial in trials if identity_of(configuration_of(trial)) not in known]
    for result in run_each(config, missing):
        results.append(result)
        write_results(path, results)
    known = by_configuration(results)
    found = [(trial.cell, known[identity_of(configuration_of(trial))]) for trial in trials]
    show_table(found)
    if config.picture is not None:
        draw(found, Path(config.picture))
    others = len(results) - len(found)
    terminal.say(f"results in {path}" + (f", with {others} of other settings" if others else ""))


def run_each(config: SweepConfig, trials: list[Trial]) -> Iterator[Result]:
    """What each combination is, what comes of it, and what it costs."""
    if not trials:
        return
    from dpacc.search.trials import Bench

    bench = Bench(config, data_is_public=True)
    bench.require_adapters([trial.config for trial in trials])
    plans = [bench.plan_of(config=trial.config) for trial in trials]
    planned = list(zip(trials, plans, strict=True))
    for trial, plan in terminal.tracked(planned, message="trials"):
        figures, _ = bench.run(config=trial.config, plan=plan)
        yield {
            "settings": trial.cell,
            **figures,
            **plan.guarantee().to_json(),
            "noise_multiplier": plan.noise_multiplier,
            "configuration": configuration_of(trial),
        }


def read_results(path: Path) -> list[Result]:
    """What earlier launches found, whatever their settings were."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
    except ValueError:
        raise ConfigurationError(
            f"{path} is damaged: move it away, or choose another --name"
        ) from None


def write_results(path: Path, results: list[Result]) -> None:
    """All of them, in place of those that were there."""
    from dpacc.artifacts.run_folder import write_file

    lines = "".join(json.dumps(each) + "\n" for each in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path=path, content=lines.encode())


def by_configuration(results: list[Result]) -> dict[str, Result]:
    """Each result, by all that it depends on."""
    return {identity_of(each.get("configuration")): each for each in results}


def configuration_of(trial: Trial) -> dict[str, Any]:
    """All that a trial's result depends on."""
    return {name: each for name, each in asdict(trial.config).items() if name not in _OF_THE_SWEEP}


def identity_of(configuration: dict[str, Any] | None) -> str:
    """The same for the same settings in whatever order."""
    return json.dumps(configuration, sort_keys=True)


def show_table(found: list[tuple[Cell, Result]]) -> None:
    """The trials of this sweep, the best first."""
    metrics = metrics_of(found)
    ranked = sorted(found, key=lambda each: merit(each[1]), reverse=True)
    terminal.show_table(
        title=f"{len(found)} {'trial' if len(found) == 1 else 'trials'}, best first",
        columns=[*found[0][0], *metrics],
        rows=[
            [*cell.values(), *(f"{result[name]:.4g}" for name in metrics)]
            for cell, result in ranked
        ],
    )


def draw(found: list[tuple[Cell, Result]], path: Path) -> None:
    """The trials of this sweep as a picture."""
    from dpacc.artifacts.run_folder import write_file
    from dpacc.search.trials_chart import draw_trials

    metric = metrics_of(found)[0]
    picture = draw_trials(
        trials=[{**cell, metric: result[metric]} for cell, result in found],
        varied=list(found[0][0]),
        metric=metric,
        form=format_of(path=path),
    )
    write_file(path=path, content=picture)
    terminal.say(f"picture in {path}")


def metrics_of(found: list[tuple[Cell, Result]]) -> list[str]:
    """What held-out data measured, the first of which decides."""
    return [name for name in ("accuracy", "macro F1", "perplexity") if name in found[0][1]]


def merit(figures: Mapping[str, Any]) -> float:
    """Larger is better; what is no number at all is worst."""
    found = float(figures.get("accuracy", -figures.get("perplexity", 0.0)))
    return -math.inf if math.isnan(found) else found


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
