"""A configuration as text: each setting with what it means, and at the head what it promises."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from dpacc.recipe.config import TrainingConfig

_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "What is learned, and where": (
        "name", "model", "train_data", "held_out_data", "task", "text_field", "prompt_field",
        "completion_field", "messages_field", "words_field", "label_field", "labels", "max_length",
    ),
    "The promise": (
        "epsilon", "delta", "unit_field", "expected_batch_size", "epochs", "steps", "clipping",
        "max_grad_norm",
    ),
    "The adapters": ("lora_rank", "lora_alpha", "learning_rate"),
    "The machine": (
        "quantization", "dtype", "gradient_checkpointing", "offload_activations",
        "micro_batch_tokens",
    ),
}  # fmt: skip
_WIDTH = 98
_END = "\n..."


def configuration_text(
    *, config: TrainingConfig, head: str, shown: Collection[str], others: str = ""
) -> str:
    """The YAML file that `recipes/train.py --config` reads as `config`.

    Args:
        config: the run; settings that other recipes add are left out.
        head: comes first, as a comment.
        shown: settings that are written though they are defaults; others are where they differ.
        others: a comment on settings that are worth a look.

    >>> config = TrainingConfig(
    ...     model="m", train_data="t.jsonl", epsilon=8.0, expected_batch_size=64, steps=100)
    >>> text = configuration_text(config=config, head="(8, N^-1.1)-DP.", shown=())
    >>> [line for line in text.splitlines() if line and not line.startswith("#")]
    ['model: m', 'train_data: t.jsonl', 'epsilon: 8.0', 'expected_batch_size: 64', 'steps: 100']
    """
    fields = {field.name: field for field in dataclasses.fields(TrainingConfig)}
    placed = {name for names in _SECTIONS.values() for name in names}
    sections = {**_SECTIONS, "More": tuple(name for name in fields if name not in placed)}
    parts = [_comment(head)]
    for title, names in sections.items():
        told = [
            _setting(fields[name], getattr(config, name))
            for name in names
            if name in shown or getattr(config, name) != fields[name].default
        ]
        if told:
            parts += [f"# --- {title}", *told]
    return "\n\n".join([*parts, _comment(others)] if others else parts) + "\n"


def _setting(field: dataclasses.Field[Any], value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    told = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000)
    line = f"{field.name}: {told.split(_END)[0].strip()}"
    return f"{_comment(field.metadata['meaning'])}\n{line}"


def _comment(text: str) -> str:
    lines = [
        wrapped
        for line in text.splitlines()
        for wrapped in (textwrap.wrap(line, _WIDTH) if len(line) > _WIDTH else [line])
    ]
    return "\n".join(f"# {line}".rstrip() for line in lines)
