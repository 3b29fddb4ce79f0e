"""Twenty hospitals teach one model to find entities in clinical notes that none of them shows.

    python recipes/fetch_clinical.py
    python recipes/healthcare.py --config recipes/configs/healthcare/hospitals.yaml

The notes are synthetic: templates, filled with the words of an ontology and the diseases of
simulated lives. Hospitals differ in what they treat, how many patients they have, how they write
and what ε they allow; a patient with all notes is what each of them protects. With `compare` each
then trains alone, and one on everything, with noise and without. Other notes can be put in their
place: `<hospital>.jsonl` and `held_out_<hospital>.jsonl` in the folder `data`, without `compare`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpacc.cli import terminal
from dpacc.cli.guarantee_table import federation_rows
from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import check_limits, read_settings, setting

if TYPE_CHECKING:
    from dpacc.federated import Defence, DPSettings, SecureSum
    from dpacc.federated.healthcare.held_out_notes import Scores
    from dpacc.federated.healthcare.scenario import HealthcareFederation, Outcome
    from dpacc.federated.server.history import RoundReport

_FEWEST_OF_A_LEVEL = 2
_USAGE = "python recipes/healthcare.py --config FILE.yaml [settings]"


@dataclass(frozen=True, kw_only=True)
class HealthcareConfig:
    """Every choice that is no hospital's own."""

    model: str = setting("Folder of an encoder or causal LM, or its id on the hub.")
    data: str = setting("Folder of the notes; it is filled with synthetic ones if it is missing.")
    budgets: str = setting("YAML of each hospital's privacy and training.")
    clinical: str = setting("Folder of lives and findings to write notes about.", default="")
    fewest_patients: int = setting("Of the smallest hospital.", default=40, at_least=1)
    most_patients: int = setting("Of the largest hospital.", default=160, at_least=1)
    held_out_patients: int = setting("Of each hospital.", default=20, at_least=1)
    notes_seed: int = setting("Seeds hospitals, patients and notes.", default=0)
    labels: tuple[str, ...] = setting(
        "Every tag of a word; synthetic notes' by default.", default=()
    )
    max_length: int = setting("Tokens kept of each note.", default=96, at_least=2)
    name: str = setting("Name of this run's folder.", default="healthcare")
    output_dir: str = setting("Folder that holds the folders of all runs.", default="runs")
    rounds: int = setting("How often the hospitals' adapters become one.", default=8, at_least=1)
    local_epochs: float = setting(
        "Expected passes over its patients that a hospital makes in one round.",
        default=0.5,
        above=0,
    )
    defence: Literal["none", "multi-krum", "median", "trimmed-mean", "clipped-mean"] = setting(
        "Against hostile hospitals. All but none also leave out outliers.", default="none"
    )
    attackers: int = setting("How many hospitals may be hostile.", default=0, at_least=0)
    secure_sum: bool = setting(
        "Whether the server sees the sum of all updates alone (SecAgg).", default=False
    )
    may_drop_out: int = setting(
        "How many hospitals may be missing from a secure sum.", default=0, at_least=0
    )
    lora_rank: int = setting("Rank of the adapters.", default=4, at_least=1)
    lora_alpha: float = setting("Adapters are scaled by lora_alpha / lora_rank.", default=0.5)
    lora_target_modules: tuple[str, ...] = setting("Adapted layers.", default=("all-linear",))
    lora_top_layers: int = setting(
        "Adapt this many of the last blocks; what lies beneath them is computed once.",
        default=1,
        at_least=1,
    )
    keep_activations: bool = setting(
        "Compute what lies beneath once; false for a model that drops out.", default=True
    )
    compare: bool = setting(
        "Train alone and on everything, too, also without noise: for notes of nobody alone.",
        default=False,
    )
    open_epochs: float = setting("Passes over everything without noise.", default=3.0, above=0)
    open_learning_rate: float = setting("Of training without noise.", default=5e-3, above=0)
    seed: int = setting("Seeds A and the head, which are public.", default=0)

    def __post_init__(self) -> None:
        check_limits(settings=self)


def main(arguments: Sequence[str]) -> None:
    """Read the settings, write notes if there are none, train, and show what came of it."""
    config = read_settings(kind=HealthcareConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts.run_folder import unspent_folders_removed
    from dpacc.federated import read_budgets
    from dpacc.recipe.pretrained import bases_read_once

    budgets = read_budgets(path=config.budgets)
    make_notes(config, budgets)
    with unspent_folders_removed(), bases_read_once():
        run(config, budgets)


def make_notes(config: HealthcareConfig, budgets: Mapping[str, DPSettings]) -> None:
    """Synthetic notes of the hospitals that the budgets name, unless a folder of notes is there."""
    from dpacc.federated.healthcare.hospitals import hospitals_drawn, write_hospitals
    from dpacc.federated.healthcare.vocabulary import read_vocabulary

    folder = Path(config.data)
    if not folder.is_dir():
        if not config.clinical:
            raise ConfigurationError(
                f"there is no folder {folder} of notes; name one with --data, or run `python "
                "recipes/fetch_clinical.py` and add --clinical data/clinical"
            )
        vocabulary = read_vocabulary(folder=config.clinical)
        hospitals = hospitals_drawn(
            vocabulary=vocabulary,
            count=len(budgets),
            fewest=config.fewest_patients,
            most=config.most_patients,
            seed=config.notes_seed,
        )
        unknown = {each.name for each in hospitals} ^ {*budgets}
        if unknown:
            raise ConfigurationError(
                f"{config.budgets} and the hospitals that are drawn differ in "
                f"{', '.join(sorted(unknown))}"
            )
        # A run that is stopped leaves no folder that looks whole, and the next nothing of its.
        begun = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(begun, ignore_errors=True)
        write_hospitals(
            folder=begun,
            hospitals=hospitals,
            vocabulary=vocabulary,
            held_out=config.held_out_patients,
            seed=config.notes_seed,
        )
        begun.rename(folder)
    for name in budgets:
        if not (folder / f"{name}.jsonl").is_file():
            raise ConfigurationError(f"{folder} has no {name}.jsonl of {config.budgets}")


def run(config: HealthcareConfig, budgets: Mapping[str, DPSettings]) -> None:
    """Train together and, to compare, apart; each part's scores are kept once they are known."""
    from dpacc.artifacts.earlier_runs import spent_by_client
    from dpacc.artifacts.run_folder import new_run_folder

    started = time.monotonic()
    for name in budgets:
        told = spent_by_client(output_dir=config.output_dir, name=config.name, client=name)
        if told is not None:
            terminal.say(told)
    folder = new_run_folder(output_dir=config.output_dir, name=config.name)
    terminal.say(f"{len(budgets)} hospitals, {config.rounds} rounds, run folder {folder}")
    scenario = make_scenario(config, budgets, folder)
    together = scenario.train(
        defence=defence_of(config), secure_sum=sum_of(config, len(budgets)), on_round=show_round
    )
    kept: dict[str, Any] = {}
    keep(folder, kept, "federated", together.scores)
    if config.compare:
        compare(config, scenario, budgets, folder, together, kept)
    scenario.close()
    guarantee, seconds = together.history.guarantee(), time.monotonic() - started
    facts = federation_rows(guarantee, folder=folder, seconds=seconds)
    terminal.show_facts(title="Private federation", facts=facts)


def make_scenario(
    config: HealthcareConfig, budgets: Mapping[str, DPSettings], folder: Path
) -> HealthcareFederation:
    """The hospitals, and what is measured."""
    from dpacc.federated import LoraSettings
    from dpacc.federated.healthcare.notes import LABELS
    from dpacc.federated.healthcare.scenario import HealthcareFederation

    return HealthcareFederation(
        hospitals=budgets,
        data=config.data,
        model_name=config.model,
        folder=folder,
        rounds=config.rounds,
        local_epochs=config.local_epochs,
        lora_config=LoraSettings(
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            target_modules=config.lora_target_modules,
            top_layers=config.lora_top_layers,
            seed=config.seed,
        ),
        labels=config.labels or LABELS,
        max_length=config.max_length,
        keep_activations=config.keep_activations,
    )


def defence_of(config: HealthcareConfig) -> Defence | None:
    """Against hostile hospitals, if asked for."""
    from dpacc.federated import Defence

    if config.defence == "none":
        return None
    return Defence(rule=config.defence, attackers=config.attackers)


def sum_of(config: HealthcareConfig, hospitals: int) -> SecureSum | None:
    """What hides each update, if asked for."""
    from dpacc.federated import SecureSum

    if not config.secure_sum:
        return None
    return SecureSum(clients=hospitals, threshold=hospitals - config.may_drop_out)


def compare(
    config: HealthcareConfig,
    scenario: HealthcareFederation,
    budgets: Mapping[str, DPSettings],
    folder: Path,
    together: Outcome,
    kept: dict[str, Any],
) -> None:
    """Each alone, and everything in one place with noise and without."""
    from dpacc.federated.healthcare.comparison import mean_f1, own_and_other

    alone = {}
    for name in budgets:
        terminal.say(f"{name} alone")
        alone[name] = scenario.train_alone(name).scores
        keep(folder, kept, f"alone {name}", alone[name])
    terminal.say("everything in one place, the strictest ε for all")
    pooled = scenario.train_pooled().scores
    keep(folder, kept, "pooled", pooled)
    terminal.say("everything in one place, without noise")
    bare = scenario.train_without_privacy(
        epochs=config.open_epochs, batch_size=32, learning_rate=config.open_learning_rate
    )
    keep(folder, kept, "without privacy", bare)
    own, other = own_and_other(alone)
    show_comparison(own, other, together.scores, pooled, bare)
    show_levels(budgets, own, together.scores)
    levels = {"in one place": mean_f1(pooled), "in one place, no privacy": mean_f1(bare)}
    draw_figure(folder / "entities.png", together, own, levels)


def keep(folder: Path, kept: dict[str, Any], part: str, scores: Scores) -> None:
    """Write what is known so far."""
    from dpacc.artifacts.run_folder import write_file
    from dpacc.federated.healthcare.comparison import as_document

    kept[part] = as_document(scores)
    write_file(path=folder / "scores.json", content=json.dumps(kept, indent=1).encode())


# --- what is shown --------------------------------------------------------------------------


def show_round(report: RoundReport) -> None:
    """Who took part in a round, and what the average finds."""
    quality = list(report.quality.values())
    terminal.say(
        f"Round {report.number}: {len(report.survivors)} of {len(report.asked)} hospitals, "
        f"{len(report.filtered)} filtered; mean F1 {100 * sum(quality) / len(quality):.1f}%"
    )
    for name, why in {**report.failed, **report.filtered}.items():
        terminal.say(f"  {name}: {why}")


def show_comparison(
    own: Mapping[str, float],
    other: Mapping[str, float],
    together: Scores,
    pooled: Scores,
    bare: Scores,
) -> None:
    """Mean F1 by kind of entity and way to train, and what sharing adds."""
    from dpacc.federated.healthcare.comparison import difference, f1_of, mean_f1

    kinds = sorted({kind for each in together.values() for kind in each} - {"all"})
    rows = [
        [kind, *(f"{100 * mean_f1(scores, kind):.1f}%" for scores in (together, pooled, bare))]
        for kind in [*kinds, "all"]
    ]
    terminal.show_table(
        title="F1 in held-out notes, mean of all hospitals",
        columns=["entity", "federated", "in one place", "in one place, no privacy"],
        rows=rows,
    )
    shared = f1_of(together)
    gains = {
        "each alone, its own notes": difference(own, shared),
        "each alone, others' notes": difference(other, shared),
        "in one place": difference(f1_of(pooled), shared),
        "in one place, no privacy": difference(f1_of(bare), shared),
    }
    found = (own, other, f1_of(pooled), f1_of(bare))
    terminal.show_table(
        title="Federated, beside other ways to train (mean F1 over hospitals, standard error)",
        columns=["way", "F1", "federated", "difference"],
        rows=[
            [
                way,
                f"{100 * sum(values.values()) / len(values):.1f}%",
                f"{100 * mean_f1(together):.1f}%",
                f"{100 * gain.mean:+.1f} ± {100 * gain.error:.1f}",
            ]
            for (way, gain), values in zip(gains.items(), found, strict=True)
        ],
    )


def show_levels(
    budgets: Mapping[str, DPSettings], own: Mapping[str, float], together: Scores
) -> None:
    """What sharing adds, by what hospitals allow."""
    from dpacc.federated.healthcare.comparison import difference, f1_of

    shared, rows = f1_of(together), []
    for epsilon in sorted({each.epsilon for each in budgets.values()}):
        names = [name for name, each in budgets.items() if each.epsilon == epsilon]
        if len(names) < _FEWEST_OF_A_LEVEL:
            continue
        alone, federated = ({name: found[name] for name in names} for found in (own, shared))
        gain = difference(alone, federated)
        rows.append(
            [
                f"{epsilon:g}",
                str(len(names)),
                *(f"{100 * sum(each.values()) / len(names):.1f}%" for each in (alone, federated)),
                f"{100 * gain.mean:+.1f} ± {100 * gain.error:.1f}",
                str(sum(federated[name] > alone[name] for name in names)),
            ]
        )
    terminal.show_table(
        title="Own notes, by ε of a patient (mean F1, standard error)",
        columns=["ε", "hospitals", "alone", "federated", "difference", "gain"],
        rows=rows,
    )


def draw_figure(
    path: Path, together: Outcome, own: Mapping[str, float], levels: Mapping[str, float]
) -> None:
    """What each hospital's ε bought, alone and together."""
    from dpacc.federated.healthcare.comparison import f1_of
    from dpacc.federated.healthcare.entity_chart import HospitalGain, draw_gains

    shared, history = f1_of(together.scores), together.history
    gains = [
        HospitalGain(name=name, epsilon=epsilon, alone=own[name], federated=shared[name])
        for name, epsilon in history.epsilons().items()
    ]
    picture = draw_gains(history=history, guarantee=history.guarantee(), gains=gains, levels=levels)
    path.write_bytes(picture)


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
