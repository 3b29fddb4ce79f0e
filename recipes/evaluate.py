"""Measure a finished adapter, or its bare base, on held-out data.

    python recipes/evaluate.py --adapter runs/smollm2-sentiment

The configuration is that of the run, which its folder holds; settings that are given stand, such as
`held_out_data`, and without an adapter `--config FILE.yaml` names one. A causal model is measured
by its perplexity, by samples of what it writes and, where the held-out completions are a few
different ones, by which of them it finds likeliest; a classifier by accuracy and F1. The held-out
data is not protected by any guarantee.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dpacc.artifacts.kept.run_settings import (
    differences_from_training,
    tokenizer_source,
    with_the_runs_settings,
)
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

_USAGE = "python recipes/evaluate.py [--adapter FOLDER] [--config FILE.yaml] [settings]"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(TrainingConfig):
    """The settings of a run, and of its evaluation."""

    adapter: str | None = setting("Folder of a run. null measures the base.", default=None)
    rank: int | None = setting(
        "Keep this many of the adapter's first rows and columns. null keeps all.",
        default=None,
        at_least=1,
    )
    samples: int = setting("Texts to be written, from held-out beginnings.", default=3, at_least=0)
    sample_tokens: int = setting("Tokens of each.", default=40, at_least=1)
    as_json: bool = setting("Print one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to measure on: name a file with --held_out_data")


def main(arguments: Sequence[str]) -> None:
    """Read the settings, measure, and show what came of it."""
    words = with_the_runs_settings(arguments, kind=EvaluationConfig, option="adapter")
    config = read_settings(kind=EvaluationConfig, arguments=words, usage=_USAGE)
    if config.adapter is not None:
        for told in differences_from_training(config=config, folder=Path(config.adapter)):
            terminal.say(told)
    found = evaluate(config)
    if config.as_json:
        terminal.show_json(found)
        return
    samples = found.pop("samples", [])
    facts = [(name, _written(value)) for name, value in found.items()]
    terminal.show_facts(title=config.adapter or config.model, facts=facts)
    for sample in samples:
        terminal.show_facts(title="a sample", facts=list(sample.items()))


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Every figure by its name."""
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.recipe.examples import (
        load_held_out_examples,
        load_held_out_units,
        pad_examples,
    )
    from dpacc.recipe.models import load_adapter, load_base
    from dpacc.recipe.predictions import continue_texts, held_out_figures, held_out_texts
    from dpacc.recipe.pretrained import load_tokenizer
    from dpacc.recipe.training_data import admit_held_out

    # The data before any weights, for it may be what is wrong.
    folder = None if config.adapter is None else Path(config.adapter)
    tokenizer = load_tokenizer(model=tokenizer_source(folder=folder, model=config.model))
    held_out = load_held_out_examples(config=config, tokenizer=tokenizer)
    private, owners = _private_examples(config, tokenizer)
    admit_held_out(
        config=config,
        private=private,
        held_out=held_out,
        owners=owners,
        held_out_owners=load_held_out_units(config=config),
    )
    base = load_base(
        model=config.model,
        quantization=config.quantization,
        dtype=config.dtype,
        task=config.task,
        labels=config.labels,
        seed=config.seed,
    )
    model = base.model
    if folder is not None:
        model = load_adapter(model=model, folder=folder, rank=config.rank)
    collate = partial(pad_examples, pad_token_id=tokenizer.pad_token_id)
    found: dict[str, Any] = {"held-out examples": len(held_out)}
    if config.task == "preference":
        return found | preference_figures(config, model, held_out, collate)
    found |= held_out_figures(
        config=config, model=model, tokenizer=tokenizer, examples=held_out, collate=collate
    )
    if config.task != "causal-lm" or not config.samples:
        return found
    prompts, completions = held_out_texts(config=config)
    given, tokens = prompts[: config.samples], config.sample_tokens
    if completions and not config.learn_end:
        # Nothing else would stop it after the longest of them.
        tokens = min(tokens, max(map(len, tokenizer(completions)["input_ids"])))
    written = continue_texts(
        model=model,
        tokenizer=tokenizer,
        prompts=given,
        tokens=tokens,
        seed=config.seed,
    )
    samples = zip(given, written, strict=True)
    found["samples"] = [{"given": prompt, "written": text} for prompt, text in samples]
    return found


def _private_examples(
    config: EvaluationConfig, tokenizer: Any
) -> tuple[list[Any], list[Any] | None]:
    """The training data and its owners, where it is at hand and has examples of this form."""
    from dpacc.recipe.examples import load_training_examples, load_units

    if not Path(config.train_data).expanduser().exists():
        return [], None
    with suppress(ConfigurationError):
        examples = load_training_examples(config=config, tokenizer=tokenizer)
        return examples, load_units(config=config)
    return [], None


def preference_figures(
    config: EvaluationConfig, model: Any, held_out: list[Any], collate: Any
) -> dict[str, Any]:
    """Accuracy and margin of a model's preferences, beside its base where the loss has one."""
    from dpacc.recipe.objective import beta_for
    from dpacc.recipe.preferences import held_out_preferences, references_for

    examples = references_for(config=config, model=model, examples=held_out, collate=collate)
    found = held_out_preferences(
        model=model,
        examples=examples,
        collate=collate,
        beta=beta_for(config=config),
        max_tokens=config.micro_batch_tokens,
    )
    return {"accuracy": found.accuracy, "standard error": found.error, "margin": found.margin}


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
