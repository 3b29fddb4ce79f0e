"""Ask a finished adapter: classes with their probabilities, answers, or what it writes.

    python recipes/predict.py --adapter runs/smollm2-sentiment --data new.jsonl > answers.jsonl

The configuration is that of the run, which its folder holds, and records have the fields that it
trained on, without labels and completions. Without `--data` they are lines of JSON on standard
input; a line of JSON comes out for each, in order. These are no private results: each is computed
from its record without noise, and the run's guarantee is that of its training data alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc.artifacts.kept.run_settings import (
    differences_from_training,
    require_storage_of_training,
    tokenizer_source,
    with_the_runs_settings,
)
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

_USAGE = "python recipes/predict.py --adapter FOLDER [--data FILE] [settings]"
_NOT_PRIVATE = (
    "what comes out is computed from each record without noise: keep it as you keep the records; "
    "the adapter's guarantee is that of its training data alone"
)


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(TrainingConfig):
    """The settings of a run, and of what its adapter is asked."""

    adapter: str = setting("Folder of a run.")
    data: str | None = setting(
        "Records to be answered. null reads lines of JSON from standard input.", default=None
    )
    temperature: float = setting(
        "Words are drawn from softmax(logits / this). 0 takes the likeliest.",
        default=0.0,
        at_least=0,
    )
    top_p: float = setting(
        "Draw among the likeliest words that have this much probability together.",
        default=1.0,
        above=0,
        at_most=1,
    )
    new_tokens: int | None = setting(
        "Most tokens to write to each; null takes what max_length leaves after the prompt, and at "
        "least half of it.",
        default=None,
        at_least=1,
    )
    batch_size: int = setting("Records answered at once.", default=32, at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_tokens is not None and self.new_tokens >= self.max_length:
            raise ConfigurationError(
                f"new_tokens={self.new_tokens} must be below max_length={self.max_length}, the "
                "most that the adapter was trained on"
            )


def main(arguments: Sequence[str]) -> None:
    """Read the settings, and answer record after record."""
    words = with_the_runs_settings(arguments, kind=PredictionConfig, option="adapter")
    config = read_settings(kind=PredictionConfig, arguments=words, usage=_USAGE)
    folder = Path(config.adapter)
    require_storage_of_training(config=config, folder=folder)
    for told in differences_from_training(config=config, folder=folder):
        terminal.say(told)
    predict(config)


def predict(config: PredictionConfig) -> None:
    """A line of JSON for each record, on standard output as soon as it is there."""
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.artifacts.serving.answering import answers_to, read_questions
    from dpacc.recipe.assembly import adapted_base_for
    from dpacc.recipe.pretrained import load_tokenizer

    if config.data is None and sys.stdin.isatty():
        raise ConfigurationError(
            "nothing to answer: name a file with --data, or give lines of JSON on standard input"
        )
    # The records before any weights, for they may be what is wrong.
    source = sys.stdin if config.data is None else config.data
    records = read_questions(source=source, config=config)
    where = tokenizer_source(folder=Path(config.adapter), model=config.model)
    tokenizer = load_tokenizer(model=where)
    sampling = sampling_for(config, tokenizer, records)
    model = adapted_base_for(config=config, folder=Path(config.adapter))
    terminal.say(_NOT_PRIVATE)
    for answer in answers_to(
        records=records,
        config=config,
        model=model,
        tokenizer=tokenizer,
        sampling=sampling,
        batch_size=config.batch_size,
    ):
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def sampling_for(config: PredictionConfig, tokenizer: Any, records: Sequence[Any]) -> Any:
    """How text is written; None where classes or answers are chosen among."""
    from dpacc.artifacts.synthetic.generation import Sampling, room_for
    from dpacc.artifacts.synthetic.requests import request_for

    if config.labels is not None or config.answers is not None:
        return None
    kept, room = room_for(
        requests=[request_for(fields=r, config=config, tokenizer=tokenizer) for r in records],
        max_length=config.max_length,
        new_tokens=config.new_tokens,
    )
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        kept=kept,
        room=room,
        least=0,
        among=None,
        seed=config.seed,
    )


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
