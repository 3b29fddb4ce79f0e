"""Count the labels of private records, with noise, at a price: how many of each to write.

    python recipes/count_labels.py --config recipes/configs/smollm2_labelled.yaml \\
        --labels_from recipes/configs/sentiment_shares.json --count_noise 20

The configuration is that of the training run; which labels there are is public. Each privacy unit
has one vote. The counts, and the ledger that is charged for them, lie in a new folder, which
`recipes/synthesize.py --labels_from FOLDER` reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.cli import terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

if TYPE_CHECKING:
    from dpacc_accounting import Guarantee

_USAGE = "python recipes/count_labels.py --config FILE.yaml --labels_from FILE.json [settings]"


@dataclass(frozen=True, kw_only=True)
class CountConfig(TrainingConfig):
    """The settings of a run, and of how its labels are counted."""

    labels_from: str = setting(
        "JSON file with one object whose keys are all labels that are counted: they are public."
    )
    count_noise: int = setting(
        "Standard deviation of each count's noise, in votes.", default=20, at_least=1
    )
    as_json: bool = setting("Print one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_field is None or "," in self.prompt_field or self.messages_field:
            raise ConfigurationError(
                "labels are prompts (control codes): name their field with --prompt_field"
            )
        if Path(self.labels_from).expanduser().is_dir():
            raise ConfigurationError(
                f"labels_from={self.labels_from} is a folder: give a public file of all labels"
            )


def main(arguments: Sequence[str]) -> None:
    """Read the settings, count, and say what it cost."""
    config = read_settings(kind=CountConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        counts, claim, folder = count(config)
    if config.as_json:
        guarantee = claim.to_json()
        terminal.show_json({"counts": counts, "guarantee": guarantee, "folder": str(folder)})
        return
    facts = [
        *((label.strip(), str(number)) for label, number in counts.items()),
        ("noise", f"{config.count_noise} votes, discrete Gaussian, added once"),
        *guarantee_rows(claim),
        ("beside it", "what the training costs: the card of what is written composes both"),
        ("saved in", str(folder)),
    ]
    terminal.show_facts(title="Labels, counted with noise", facts=facts)


def count(config: CountConfig) -> tuple[dict[str, int], Guarantee, Path]:
    """One release: the counts, what they cost, and the folder of their ledger."""
    from dpacc_accounting import Budget, read_ledger
    from dpacc_accounting.ledger.claims import claim_of

    from dpacc.artifacts.run_folder import new_run_folder
    from dpacc.artifacts.synthetic.label_counts import LEDGER, release_counts, votes_of
    from dpacc.artifacts.synthetic.sources import read_shares
    from dpacc.data.privacy_units import count_units
    from dpacc.recipe.examples import load_units, read_training_records

    budget = None if config.budget is None else Budget(path=config.budget)
    if budget is not None:
        budget.require_data(data=config.train_data)
    known = [*read_shares(source=config.labels_from, config=config)]
    records, owners = read_training_records(config=config), load_units(config=config)
    size = count_units(examples=len(records), units=owners, kept_of_each=config.kept_of_each)
    folder = new_run_folder(output_dir=config.output_dir, name=f"{config.name}-labels")
    counts = release_counts(
        votes=votes_of(
            labels=[str(record[config.prompt_field or ""]) for record in records],
            owners=owners,
            known=known,
        ),
        noise=config.count_noise,
        folder=folder,
        settings={
            "unit": config.unit,
            "dataset_size": size,
            "target_delta": config.delta_for(dataset_size=size),
        },
        budget=budget,
    )
    record = read_ledger(path=folder / LEDGER)
    return counts, claim_of(plan=record.plan, record=record), folder


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
