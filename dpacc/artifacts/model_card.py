"""The adapter's model card: what it is, what it promises, how it was made, how to use it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import yaml

from dpacc.artifacts.progress_chart import Measurement
from dpacc.recipe.config import TrainingConfig

_SETTINGS = (
    "lora_method",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_top_layers",
    "quantization",
    "dtype",
    "optimizer",
    "learning_rate",
    "warmup_steps",
    "average_iterates",
    "weight_decay",
    "max_length",
    "seed",
)

_SETTINGS_OF_PAIRS = ("preference_loss", "beta", "label_smoothing", "simpo_gamma")

_CARD = """\
---
{front_matter}---

# {name}

A LoRA adapter for `{base}`, trained with dpacc {dpacc}{learned}. What is and what is not promised
about its training data is stated below; `privacy.json` holds the same for machines, and
`ledger.jsonl` every release it rests on.

{statement}

## Quality

{quality}

![Privacy spent and held-out quality against steps]({picture})

## Training

{settings}

## Use

```python
from peft import PeftModel
from transformers import {family}

base = {family}.from_pretrained("{base}"{labels})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


_LEARNED_OF_PAIRS = (
    " on preference pairs ({loss}): a prompt with the answer that people chose and one that they "
    "rejected, which are protected together"
)

_TASKS = {
    "causal-lm": ("AutoModelForCausalLM", "text-generation"),
    "sequence-classification": ("AutoModelForSequenceClassification", "text-classification"),
    "token-classification": ("AutoModelForTokenClassification", "token-classification"),
    "preference": ("AutoModelForCausalLM", "text-generation"),
}
"""Of each task: the class that loads its base, and the hub's word for it."""


def write_card(
    *,
    config: TrainingConfig,
    statement: str,
    measurements: Sequence[Measurement],
    picture: str,
) -> str:
    """Return the card in Markdown, with the front matter that model hubs read.

    Args:
        config: what the run was told; paths of data stay out of the card.
        statement: the guarantee in words, in Markdown.
        measurements: where the run stood, in order of steps.
        picture: file name of the plot beside the card.
    """
    return _CARD.format(
        front_matter=_front_matter(config),
        name=config.name,
        base=config.model,
        learned=_LEARNED_OF_PAIRS.format(loss=config.preference_loss)
        if config.task == "preference"
        else "",
        family=_TASKS[config.task][0],
        labels="" if config.labels is None else f", num_labels={len(config.labels)}",
        dpacc=version("dpacc"),
        statement=one_level_down(statement.strip()),
        quality=_quality(measurements),
        picture=picture,
        settings=table([(name, _as_text(value)) for name, value in shown_settings(config).items()]),
    )


def shown_settings(config: TrainingConfig) -> dict[str, Any]:
    """How a run was told to train; what names private data stays out."""
    names = _SETTINGS + _SETTINGS_OF_PAIRS * (config.task == "preference")
    return {name: getattr(config, name) for name in names}


def _front_matter(config: TrainingConfig) -> str:
    fields = {
        "base_model": config.model,
        "library_name": "peft",
        "pipeline_tag": _TASKS[config.task][1],
        "tags": ["lora", "differential-privacy", "dp-sgd", "dpacc"],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _quality(measurements: Sequence[Measurement]) -> str:
    measured = [
        each
        for each in measurements
        if math.isfinite(math.inf if each.quality is None else each.quality)
    ]
    if not measured:
        return "No held-out data was given, so its quality was not measured."
    first, last = measured[0], measured[-1]
    rows = [
        (f"before training (step {first.step})", first.shown),
        (f"after training (step {last.step})", last.shown),
    ]
    return table(rows, header=(f"held-out {last.metric}", "")) + (
        "\n\nThe held-out data is not protected by the guarantee."
    )


def one_level_down(markdown: str) -> str:
    """Make every heading fit under the card's own."""
    return re.sub(r"^(?=#+ )", "#", markdown, flags=re.MULTILINE)


def table(
    rows: Sequence[tuple[str, object]], *, header: tuple[str, str] = ("setting", "value")
) -> str:
    """Rows of two cells in Markdown, beneath what they are.

    >>> print(table([("seed", 0)]))
    | setting | value |
    | --- | --- |
    | seed | 0 |
    """
    lines = [header, ("---", "---"), *rows]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)


def _as_text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
