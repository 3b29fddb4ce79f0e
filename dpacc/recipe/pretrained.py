"""Where a pretrained model lies, and its tokenizer, which is read before any weights are."""

from __future__ import annotations

import copy
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from huggingface_hub import model_info, try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from dpacc.errors import ConfigurationError

Given = ParamSpec("Given")
Loaded = TypeVar("Loaded", bound=tuple[Any, ...])

_kept: dict[str, tuple[Any, ...]] | None = None

_loading, _quieted = threading.Lock(), list[ExitStack]()


@contextmanager
def bases_read_once() -> Iterator[None]:
    """Within it a base is read once, and whoever loads it again gets a copy: one more is held."""
    global _kept
    outer, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = outer


def read_once(read: Callable[Given, Loaded]) -> Callable[Given, Loaded]:
    """Within `bases_read_once`, copy the model, the first of what `read` gives, if it was read."""

    @wraps(read)
    def load(*given: Given.args, **named: Given.kwargs) -> Loaded:
        if _kept is None:
            return read(*given, **named)
        settings = json.dumps([given, named], default=str, sort_keys=True)
        if settings not in _kept:
            _kept[settings] = read(*given, **named)
        model, *others = _kept[settings]
        return type(_kept[settings])(copy.deepcopy(model), *others)  # type: ignore[return-value]

    return load


def load_tokenizer(*, model: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer, which pads with its end token if it has no other.

    Args:
        model: folder, or id on the hub (`HF_HUB_OFFLINE` is honoured).

    Raises:
        ConfigurationError: the folder or id cannot be read.
    """
    source = locate(model)
    try:
        with quiet_loading():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source, trust_remote_code=False
            )
    except Exception as error:  # a damaged file raises whatever its parser raises
        raise unreadable(model, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def locate(model: str) -> str:
    """Return the folder, or the hub id after asking the hub once.

    Loading an id that does not exist, or without a network, would retry for a minute.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if _reads_as_path(model):
        raise ConfigurationError(
            f"model={model} is no folder (looked in {Path.cwd()}): check the path"
        )
    if try_to_load_from_cache(model, "config.json") is None:
        try:
            model_info(model, timeout=10)
        except Exception as error:
            raise ConfigurationError(
                f"model={model} is no folder, and the hub did not give it: {first_line(error)} "
                "(check the id, the network, HF_HUB_OFFLINE, and `hf auth login` if it is gated)"
            ) from error
    return model


def unreadable(model: str, error: Exception) -> ConfigurationError:
    """What to say of a folder that some loader cannot read."""
    return ConfigurationError(
        f"model={model} cannot be read: {first_line(error)} "
        "(it must be complete: config.json, weights and tokenizer)"
    )


def first_line(error: Exception) -> str:
    """The first line that an error says, or its name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the loaders' bars and warnings off a terminal that belongs to the recipe.

    They are the whole process's: of several threads that load the last one gives them back.
    """
    with _loading:
        _quieted.append(_quieted[0] if _quieted else _quiet())
    try:
        yield
    finally:
        with _loading:
            given_back = _quieted.pop()
            if not _quieted:
                given_back.close()


def _quiet() -> ExitStack:
    before = ExitStack()
    before.callback(logging.disable, logging.root.manager.disable)
    if is_progress_bar_enabled():
        before.callback(enable_progress_bar)
    before.enter_context(warnings.catch_warnings(action="ignore"))
    logging.disable(logging.WARNING)
    disable_progress_bar()
    return before


def _reads_as_path(model: str) -> bool:
    path = Path(model)
    looks = path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    return (looks and "/" in model) or (path.parent != Path() and path.parent.is_dir())
