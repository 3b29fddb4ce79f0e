"""Merge a finished adapter into its base: one model that needs no PEFT, with its privacy statement.

    python recipes/merge.py --adapter runs/smollm2-reviews --output merged

The base is loaded unquantized, in `dtype`: weights that were quantized for training are not those
that the adapter was trained on, and merging into 4 bits would lose most of it. `--push_to_hub
owner/name` uploads the folder as well; nothing is uploaded otherwise.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpacc.cli import terminal
from dpacc.config import Precision, Task
from dpacc.errors import ConfigurationError
from dpacc.settings import check_limits, read_settings, setting

_USAGE = "python recipes/merge.py --adapter FOLDER --output FOLDER [--push_to_hub owner/name]"
# What says how private the model is goes with it.
_STATEMENT = ("README.md", "privacy.json", "ledger.jsonl", "privacy_utility.png")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """What to merge, and where to."""

    adapter: str = setting("Folder of a run.")
    output: str = setting("Folder for the merged model; it must not exist.")
    model: str | None = setting(
        "The base. null takes the one that the adapter names.", default=None
    )
    task: Task = setting("What the model's head is for.", default="causal-lm")
    labels: tuple[str, ...] | None = setting("A classification's classes.", default=None)
    dtype: Precision = setting("Of the merged weights; auto takes the base's.", default="auto")
    push_to_hub: str | None = setting(
        "Repository on the hub, made private if it is new. null uploads nothing.", default=None
    )

    def __post_init__(self) -> None:
        check_limits(settings=self)
        if Path(self.output).exists():
            raise ConfigurationError(f"{self.output} exists: choose a new folder with --output")
        if not (Path(self.adapter) / "adapter_config.json").is_file():
            raise ConfigurationError(f"{self.adapter} holds no adapter; give a run's folder")


def main(arguments: Sequence[str]) -> None:
    """Read the settings, merge, and say where the model is."""
    config = read_settings(kind=MergeConfig, arguments=arguments, usage=_USAGE)
    merge(config)
    terminal.show_facts(title="Merged", facts=[("saved in", config.output)])


def merge(config: MergeConfig) -> None:
    """The adapter's update added to the base's weights: W + s·B·A."""
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.models import base_named_by, load_adapter, load_base

    adapter = Path(config.adapter)
    base = load_base(
        model=config.model or base_named_by(adapter=adapter),
        dtype=config.dtype,
        task=config.task,
        labels=config.labels,
    )
    merged = load_adapter(model=base.model, folder=adapter).merge_and_unload(safe_merge=True)
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
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if config.push_to_hub is not None:
        from huggingface_hub import HfApi

        hub = HfApi()
        hub.create_repo(config.push_to_hub, private=True, exist_ok=True)
        hub.upload_folder(repo_id=config.push_to_hub, folder_path=output)


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
