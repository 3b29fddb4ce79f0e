"""What is given to the model that writes: prompts and labels, which nothing protects.

They stand in the synthetic file as they are, so that they must be public. The training data is
looked at for one thing alone: to refuse prompts that stand in it. Nothing that is written depends
on it.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpacc.artifacts.synthetic.requests import prompt_name
from dpacc.data.chats import read_turns, tools_complaint, turn_complaint
from dpacc.data.privacy_units import normalised
from dpacc.data.records import TEXT_OR_MESSAGES, FieldType, Record, read_records
from dpacc.data.supervision import TOOLS_FIELD
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

# Shorter ones, such as control codes and common beginnings, are nobody's.
_WORDS_OF_A_PROMPT = 5


def read_prompts(*, source: str, config: TrainingConfig) -> list[Record]:
    """Public beginnings of texts, prompts, or chats that end where the assistant goes on.

    Args:
        source: a file, with the fields of the training data but what is to be written.
        config: of the run.

    Raises:
        ConfigurationError: it cannot be read, or is the training data, or holds prompts of five
            words or more that stand in there too, as far as that is at hand.
    """
    if is_private(source=source, config=config):
        raise ConfigurationError(
            f"prompts={source} is the private training data, and prompts stand in the synthetic "
            "file as they are; give --prompts a public file"
        )
    prompts = _read_given(source, config)
    if not Path(config.train_data).expanduser().exists():
        return prompts
    same = _shared(prompts, _read_given(config.train_data, config, whole=True), config)
    if same:
        raise ConfigurationError(
            f"prompts={source}: {same} of them stand in the private training data too, and would "
            "stand in the synthetic file as they are; give public ones, or, where all records "
            "begin with the same few, name those with --labels_from"
        )
    return prompts


def read_shares(*, source: str, config: TrainingConfig) -> dict[str, float]:
    """How often each label is asked for: a public distribution, whose shares add up to 1 here.

    Args:
        source: a .json file with one object of labels and what each weighs.
        config: of the run.

    Raises:
        ConfigurationError: it is the training data, or no such object.
    """
    remedy = (
        "give --labels_from a public distribution, as one JSON object of labels and shares, or the "
        "folder in which recipes/count_labels.py released counts with noise; counts of private "
        "labels are private"
    )
    if is_private(source=source, config=config):
        raise ConfigurationError(f"labels_from={source} is the private training data: {remedy}")
    try:
        shares = json.loads(Path(source).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigurationError(f"labels_from={source} cannot be read as JSON: {remedy}") from None
    if not _are_shares(shares):
        raise ConfigurationError(f"labels_from={source} holds no shares above 0 by label: {remedy}")
    return adding_to_one(shares)


def adding_to_one(weights: Mapping[str, float]) -> dict[str, float]:
    """Each weight's share of all of them.

    >>> adding_to_one({"a": 3, "b": 1})
    {'a': 0.75, 'b': 0.25}
    """
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def is_private(*, source: str, config: TrainingConfig) -> bool:
    """Whether a source is the training data, by its name, its place or what its file holds."""
    given, private = Path(source).expanduser(), Path(config.train_data).expanduser()
    if source == config.train_data:
        return True
    if not (given.exists() and private.exists()):
        return False
    if given.samefile(private) or given.resolve().is_relative_to(private.resolve()):
        return True
    return given.is_file() and private.is_file() and file_hash(given) == file_hash(private)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- prompts ------------------------------------------------------------------------------


def _read_given(source: str, config: TrainingConfig, *, whole: bool = False) -> list[Record]:
    """Of each record what is read and not learned; of plain text all, which begins with it."""
    fields, optional = given_fields(config=config)
    return read_records(
        source=source,
        fields=fields,
        optional=optional,
        split=config.train_split,
        subset=config.data_subset,
        complaint=None if whole else chat_complaint,
    )


def given_fields(*, config: TrainingConfig) -> tuple[dict[str, FieldType], dict[str, FieldType]]:
    """The fields of what is read and not learned: those that must be there, and that may be."""
    prompt, *more = (prompt_name(config=config) or "").split(",")
    if config.messages_field is not None:
        return {config.messages_field: list}, {TOOLS_FIELD: list | str}
    if prompt and more:
        return {prompt: str}, dict.fromkeys(more, str)
    if prompt:
        return {prompt: TEXT_OR_MESSAGES}, {TOOLS_FIELD: list | str}
    return {config.text_field: str}, {}


def chat_complaint(record: Record) -> str | None:
    """What is wrong with messages that the assistant is to answer; None of what is text."""
    for messages in (value for name, value in record.items() if name != TOOLS_FIELD):
        if isinstance(messages, list):
            wrong = turn_complaint(messages) or tools_complaint(record.get(TOOLS_FIELD))
            if wrong is not None:
                return wrong
            if not messages or read_turns(messages)[-1]["role"] == "assistant":
                return "must end with a message that the assistant is to answer"
    return None


def _shared(prompts: Sequence[Record], private: Sequence[Record], config: TrainingConfig) -> int:
    """How many prompts hold what stands in private records, or begins them."""
    known = sorted({normalised(text) for record in private for text in _said(record)})
    plain = config.prompt_field is None and config.messages_field is None
    return sum(
        any(
            _stands(normalised(text), known, begins=plain)
            for text in _said(record)
            if len(text.split()) >= _WORDS_OF_A_PROMPT
        )
        for record in prompts
    )


def _stands(text: str, known: Sequence[str], *, begins: bool) -> bool:
    at = bisect_left(known, text)
    if at == len(known):
        return False
    return known[at].startswith(text) if begins else known[at] == text


def _said(record: Record) -> list[str]:
    """What people wrote in what is given: its texts, and what users say in its messages."""
    found: list[str] = []
    for name, value in record.items():
        if isinstance(value, str) and name != TOOLS_FIELD:
            found.append(value)
        elif isinstance(value, list) and turn_complaint(value) is None:
            found += [turn["content"] for turn in read_turns(value) if turn["role"] == "user"]
    return found


def _are_shares(shares: object) -> bool:
    return (
        isinstance(shares, Mapping)
        and bool(shares)
        and all(isinstance(s, int | float) and not isinstance(s, bool) for s in shares.values())
        and all(math.isfinite(share) and share > 0 for share in shares.values())
    )
