"""Merge a finished adapter into its base: one model that needs no PEFT, with its privacy statement.

    python recipes/merge.py --adapter runs/smollm2-reviews --output merged

`--gguf q8_0` (or f16) writes the same as one file for llama.cpp, with a Modelfile for Ollama.

The base is loaded unquantized, in `dtype`: weights that were quantized for training are not those
that the adapter was trained on, and merging into 4 bits would lose most of it. `--push_to_hub
owner/name` uploads the folder as well; nothing is uploaded otherwise.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpacc.cli import terminal
from dpacc.errors import ConfigurationError, require_local
from dpacc.recipe.settings import Precision, Task, check_limits, read_settings, setting

GgufFormat = Literal["none", "f16", "q8_0"]

_USAGE = "python recipes/merge.py --adapter FOLDER --output FOLDER [--push_to_hub owner/name]"
# What says how private the model is goes with it.
_STATEMENT = ("README.md", "privacy.json", "ledger.jsonl", "run.json", "privacy_utility.png")
_READS_MEAN = (
    "it reads the mean of a text's tokens, where plain transformers would put a random layer "
    "on the first one"
)
# PEFT's words for a base's head.
_TASKS: dict[str, Task] = {
    "CAUSAL_LM": "causal-lm",
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
}
_FAMILIES: dict[Task, str] = {
    "causal-lm": "AutoModelForCausalLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """What to merge, and where to."""

    adapter: str = setting("Folder of a run.")
    output: str = setting("Folder for the merged model; it must not exist.")
    model: str | None = setting(
        "The base. null takes the one that the adapter names.", default=None
    )
    labels: tuple[str, ...] | None = setting(
        "A classification's classes, as in training. null takes the run's, or the base's.",
        default=None,
    )
    rank: int | None = setting(
        "Keep this many of the adapter's first rows and columns, as lora_method dylora trains them "
        "to be kept. null keeps all.",
        default=None,
        at_least=1,
    )
    dtype: Precision = setting("Of the merged weights; auto takes the base's.", default="auto")
    gguf: GgufFormat = setting(
        "Write the model as a file for llama.cpp and Ollama as well, its matrices in this format.",
        default="none",
    )
    push_to_hub: str | None = setting(
        "Repository on the hub, made private if it is new. null uploads nothing.", default=None
    )

    def __post_init__(self) -> None:
        check_limits(settings=self)
        require_local(self.output, name="output")
        if Path(self.output).exists():
            raise ConfigurationError(f"{self.output} exists: choose a new folder with --output")
        if not (Path(self.adapter) / "adapter_config.json").is_file():
            raise ConfigurationError(f"{self.adapter} holds no adapter; give a run's folder")


def main(arguments: Sequence[str]) -> None:
    """Read the settings, merge, and say where the model is."""
    config = read_settings(kind=MergeConfig, arguments=arguments, usage=_USAGE)
    for told in differences_of_base(config):
        terminal.say(told)
    facts = [("saved in", config.output)]
    if config.gguf != "none":
        facts.append(("for llama.cpp and Ollama", "a .gguf file, and a Modelfile, in it"))
    if merge(config):
        facts.append(("to load", f"dpacc.recipe.models.load_base: {_READS_MEAN}"))
    terminal.show_facts(title="Merged", facts=facts)


def merge(config: MergeConfig) -> bool:
    """The adapter's update added to the base's weights, W + s·B·A; whether dpacc must load it."""
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.artifacts.hub import reserve_repository, upload_run
    from dpacc.layers.pooling import say_mean, takes_mean
    from dpacc.recipe.models import load_adapter, load_base

    adapter = Path(config.adapter)
    task = task_of(adapter)
    if config.gguf != "none" and task != "causal-lm":
        raise ConfigurationError(
            f"gguf={config.gguf}: the adapter in {adapter} is a {task}, whose head llama.cpp does "
            "not compute: leave --gguf out"
        )
    if config.push_to_hub is not None:
        reserve_repository(config.push_to_hub)
    base = load_base(
        model=base_of(config),
        dtype=config.dtype,
        task=task,
        labels=config.labels or labels_of(adapter),
    )
    averages = takes_mean(base.model)
    adapted = load_adapter(model=base.model, folder=adapter, rank=config.rank)
    merged = adapted.merge_and_unload(safe_merge=True)
    merged.config.use_cache = True
    # It takes its name once it is whole.
    output = Path(config.output)
    scratch = output.with_name(f".{output.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        merged.save_pretrained(scratch)
        base.tokenizer.save_pretrained(scratch)
        for name in _STATEMENT:
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, scratch / name)
        if averages:
            say_mean(scratch)
        if (scratch / "README.md").is_file():
            card = (scratch / "README.md").read_text(encoding="utf-8")
            told = merged_card(card, task=task, averages=averages)
            (scratch / "README.md").write_text(told, encoding="utf-8")
        if config.gguf != "none":
            write_served(merged, base.tokenizer, folder=scratch, kind=config.gguf, adapter=adapter)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if config.push_to_hub is not None:
        upload_run(folder=output, repository=config.push_to_hub, files=None)
    return averages


def write_served(model: Any, tokenizer: Any, *, folder: Path, kind: Any, adapter: Path) -> None:
    """The GGUF file with card and statement inside, and a Modelfile beside it."""
    from dpacc.artifacts.kept.run_settings import settings_of_run
    from dpacc.artifacts.serving.gguf_file import write_gguf
    from dpacc.artifacts.serving.ollama import MODELFILE, modelfile

    name = adapter.resolve().name
    file = f"{name}-{kind}.gguf"
    said = {"dpacc.card": folder / "README.md", "dpacc.privacy": folder / "privacy.json"}
    write_gguf(
        model=model,
        tokenizer=tokenizer,
        path=folder / file,
        kind=kind,
        name=name,
        said={key: path.read_text("utf-8") for key, path in said.items() if path.is_file()},
    )
    trained = settings_of_run(folder=adapter)
    chats = trained is not None and trained.messages_field is not None
    lines = modelfile(name=name, file=file, chats=chats)
    (folder / MODELFILE).write_text(lines, encoding="utf-8")


def base_of(config: MergeConfig) -> str:
    """The base that is given, or the one that the adapter names."""
    from dpacc.recipe.models import base_named_by

    return config.model or base_named_by(adapter=Path(config.adapter))


def differences_of_base(config: MergeConfig) -> list[str]:
    """How the base is another than in training, in words; other weights are refused."""
    from dpacc.artifacts.kept.run_settings import base_differences, settings_of_run

    folder = Path(config.adapter)
    trained = settings_of_run(folder=folder)
    if trained is None:
        return []
    told = base_differences(model=base_of(config), trained_on=trained.model, folder=folder)
    if trained.quantization != "none":
        told.append(
            f"the adapter was trained on a base in {trained.quantization}, and is merged into one "
            "that is not quantized: measure that with evaluate --quantization none"
        )
    if config.labels not in (None, trained.labels):
        raise ConfigurationError(
            f"labels={config.labels} is not what the adapter in {folder} learned, "
            f"{trained.labels}: leave --labels out"
        )
    return told


def labels_of(adapter: Path) -> tuple[str, ...] | None:
    """The classes that a run was told, where its folder says so."""
    from dpacc.artifacts.kept.run_settings import settings_of_run

    trained = settings_of_run(folder=adapter)
    return None if trained is None else trained.labels


def task_of(adapter: Path) -> Task:
    """What the head of an adapter's base is for.

    Raises:
        ConfigurationError: something that dpacc trains no adapters for.
    """
    kind = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get(
        "task_type"
    )
    if kind not in _TASKS:
        raise ConfigurationError(
            f"{adapter} holds an adapter with task_type={kind}; choose one that dpacc trained "
            f"({', '.join(_TASKS)})"
        )
    return _TASKS[kind]


def merged_card(card: str, *, task: Task, averages: bool) -> str:
    """An adapter's card, which goes with the merged model, with how that is loaded."""
    statement, _, _ = card.replace("library_name: peft", "library_name: transformers").partition(
        "\n## Use\n"
    )
    folder = "path/to/this/folder"
    if averages:
        loading = f"""\
from dpacc.recipe.models import load_base

model, tokenizer = load_base(model="{folder}", task="{task}")
"""
    else:
        loading = f"""\
from transformers import {_FAMILIES[task]}

model = {_FAMILIES[task]}.from_pretrained("{folder}")
"""
    warning = f"\nLoad it with dpacc: {_READS_MEAN}.\n" if averages else ""
    return f"""{statement.rstrip()}

## Use

The adapter is merged into its base: this folder holds a whole model.
{warning}
```python
{loading}```
"""


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
