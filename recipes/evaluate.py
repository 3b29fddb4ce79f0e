"""Measure a finished adapter, or its bare base, on held-out data.

    python recipes/evaluate.py --config recipes/configs/smollm2_sentiment.yaml \\
        --adapter runs/smollm2-sentiment

The configuration is that of the training run, with `held_out_data`. A causal model is measured by
its perplexity, by samples of what it writes and, where the held-out completions are a few different
ones, by which of them it finds likeliest; a classifier by accuracy and F1. The held-out data is not
protected by any guarantee.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpacc.cli import terminal
from dpacc.config import TrainingConfig
from dpacc.data import chosen, read_records
from dpacc.errors import ConfigurationError
from dpacc.settings import read_settings, setting

if TYPE_CHECKING:
    from dpacc.predictions import Quality

# More different completions than these are texts, not answers.
_MOST_ANSWERS = 20
# Words of a text that a sample goes on from.
_BEGINNING = 6

_USAGE = "python recipes/evaluate.py --config FILE.yaml [--adapter FOLDER] [settings]"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(TrainingConfig):
    """The settings of a run, and of its evaluation."""

    adapter: str | None = setting("Folder of a run. null measures the base.", default=None)
    samples: int = setting("Texts to be written, from held-out beginnings.", default=3, at_least=0)
    sample_tokens: int = setting("Tokens of each.", default=40, at_least=1)
    as_json: bool = setting("Print one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to measure on: name a file with --held_out_data")


def main(arguments: Sequence[str]) -> None:
    """Read the settings, measure, and show what came of it."""
    config = read_settings(kind=EvaluationConfig, arguments=arguments, usage=_USAGE)
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
    from peft import PeftModel

    from dpacc.data import load_held_out_examples, pad_examples
    from dpacc.evaluation import held_out_perplexity
    from dpacc.models import load_base
    from dpacc.predictions import continue_texts, predict_answers, predict_classes, quality_of

    base = load_base(
        model=config.model,
        quantization=config.quantization,
        dtype=config.dtype,
        task=config.task,
        labels=config.labels,
        seed=config.seed,
    )
    model = base.model
    if config.adapter is not None:
        if not (Path(config.adapter) / "adapter_config.json").is_file():
            raise ConfigurationError(f"{config.adapter} holds no adapter; give a run's folder")
        model = PeftModel.from_pretrained(base.model, config.adapter)
    held_out = load_held_out_examples(config=config, tokenizer=base.tokenizer)
    collate = partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)
    measured = {"model": model, "collate": collate, "max_tokens": config.micro_batch_tokens}
    found: dict[str, Any] = {"held-out examples": len(held_out)}
    if config.task != "causal-lm":
        predicted, true = predict_classes(examples=held_out, **measured)
        return found | figures(
            quality_of(predicted=predicted, true=true, labels=config.labels or ())
        )
    found["perplexity"] = held_out_perplexity(examples=held_out, **measured)
    prompts, completions = held_out_texts(config)
    answers = sorted(set(completions))
    if 2 <= len(answers) <= _MOST_ANSWERS:
        predicted = predict_answers(
            prompts=prompts,
            answers=answers,
            tokenizer=base.tokenizer,
            max_length=config.max_length,
            **measured,
        )
        true = [answers.index(each) for each in completions]
        found |= figures(quality_of(predicted=predicted, true=true, labels=answers))
    given = prompts[: config.samples]
    written = continue_texts(
        model=model,
        tokenizer=base.tokenizer,
        prompts=given,
        tokens=config.sample_tokens,
        seed=config.seed,
    )
    samples = zip(given, written, strict=True)
    found["samples"] = [{"given": prompt, "written": text} for prompt, text in samples]
    return found


def held_out_texts(config: EvaluationConfig) -> tuple[list[str], list[str]]:
    """What is given to a causal model, and the completion of each, where there is one."""
    if config.messages_field is not None:
        return [], []
    prompt, completion = config.prompt_field, config.completion_field
    fields = [config.text_field] if prompt is None or completion is None else [prompt, completion]
    held_out = read_records(
        source=str(config.held_out_data),
        fields=dict.fromkeys(fields, str),
        split=config.held_out_split,
        subset=config.data_subset,
    )
    records = chosen(held_out, config=config)
    if len(fields) == 1:
        beginnings = [record[fields[0]].split()[:_BEGINNING] for record in records]
        return [" ".join(words) for words in beginnings], []
    return [r[fields[0]] for r in records], [r[fields[1]] for r in records]


def figures(quality: Quality) -> dict[str, float]:
    """Accuracy and F1 by their names."""
    each = {f"F1 of {name.strip()}": f1 for name, f1 in quality.f1.items()}
    return {"accuracy": quality.accuracy, "macro F1": quality.macro_f1, **each}


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
