"""Look at synthetic records beside public held-out ones: lengths, variety, words, labels.

    python recipes/evaluate_synthetic.py --config recipes/configs/smollm2_reviews.yaml \\
        --synthetic synthetic.jsonl

The configuration is that of the training run. `--show_private_overlap true` also says how many
synthetic texts repeat a run of words of the training data. That is computed from private data
without noise: it is shown on a terminal, to their owner, and is in no file and no JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

_USAGE = "python recipes/evaluate_synthetic.py --config FILE.yaml --synthetic FILE.jsonl [settings]"


@dataclass(frozen=True, kw_only=True)
class LikenessConfig(TrainingConfig):
    """The settings of a run, and of how its synthetic records are looked at."""

    synthetic: str = setting("File that recipes/synthesize.py wrote.")
    show_private_overlap: bool = setting(
        "Say on the terminal how many texts repeat words of the training data. Not private.",
        default=False,
    )
    overlap_words: int = setting("How many words in a row are a repetition.", default=8, at_least=2)
    as_json: bool = setting("Print one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to compare with: name a file with --held_out_data")
        if self.show_private_overlap and self.as_json:
            raise ConfigurationError(
                "show_private_overlap is for the eyes of the data's owner, and JSON is handed on: "
                "leave one of them out"
            )


def main(arguments: Sequence[str]) -> None:
    """Read the settings, compare, and show it."""
    config = read_settings(kind=LikenessConfig, arguments=arguments, usage=_USAGE)
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.artifacts.synthetic.likeness import columns, compare

    synthetic, held_out = read(config, config.synthetic), read(config, config.held_out_data)
    require_public(config, held_out)
    found = compare(synthetic=synthetic, held_out=held_out, config=config)
    if config.as_json:
        terminal.show_json(found)
        return
    terminal.show_table(
        title=Path(config.synthetic).name, columns=["", *found], rows=columns(found)
    )
    if config.show_private_overlap:
        show_overlap(config, synthetic, held_out)


def read(config: LikenessConfig, source: str | None, *, split: str | None = None) -> list[Any]:
    """All records of a file, which have the fields of the training data."""
    from dpacc.recipe.examples import read_held_out_records

    split = split or config.held_out_split
    alone: dict[str, Any] = {
        "held_out_data": source,
        "held_out_examples": None,
        "held_out_split": split,
    }
    return read_held_out_records(config=replace(config, **alone))


def require_public(config: LikenessConfig, held_out: list[Any]) -> None:
    """Refuse held-out records that stand in the training data, where that is at hand."""
    from dpacc.data.overlap import require_apart

    if Path(config.train_data).expanduser().exists():
        require_apart(
            private=read(config, config.train_data, split=config.train_split),
            held_out=held_out,
            what=f"held_out_data={config.held_out_data}",
            remedy="name other data with --held_out_data",
        )


def show_overlap(config: LikenessConfig, synthetic: list[Any], held_out: list[Any]) -> None:
    """How many texts repeat training data, beside public texts that nobody wrote from it."""
    from dpacc.artifacts.synthetic.likeness import repeated_ngrams, texts_of

    private = texts_of(
        records=read(config, config.train_data, split=config.train_split), config=config
    )
    facts = [
        (
            name,
            f"{repeated_ngrams(texts, others=private, n=config.overlap_words):.2%} hold "
            f"{config.overlap_words} words in a row that stand in the training data",
        )
        for name, texts in (
            ("synthetic", texts_of(records=synthetic, config=config)),
            ("held-out", texts_of(records=held_out, config=config)),
        )
    ]
    terminal.show_facts(
        title="NOT private, for the owner's eyes: computed from private data without noise",
        facts=facts,
    )


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
