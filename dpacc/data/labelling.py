"""Classes of texts and of words, from what a record calls them to what a loss compares.

The names of the classes are given, never collected from the data: which classes occur in private
records is private too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpacc.data.supervision import IGNORED, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def class_complaint(
    record: Mapping[str, Any], *, label_field: str, labels: Sequence[str]
) -> str | None:
    """What is wrong with a text's class, without quoting it; None if nothing is.

    >>> class_complaint({"label": "glad"}, label_field="label", labels=["sad", "happy"])
    "field 'label' must be one of sad, happy, or its place from 0 to 1"
    >>> class_complaint({"label": 1}, label_field="label", labels=["sad", "happy"])
    """
    if _place(record[label_field], labels) is not None:
        return None
    return f"field {label_field!r} must be one of {_listed(labels)}"


def tag_complaint(
    record: Mapping[str, Any], *, words_field: str, label_field: str, labels: Sequence[str]
) -> str | None:
    """What is wrong with the classes of a record's words, without quoting them; None if nothing is.

    >>> record = {"words": ["Paris", "calls"], "label": ["place"]}
    >>> tag_complaint(record, words_field="words", label_field="label", labels=["place", "other"])
    "field 'label' names 1 classes for 2 words in 'words'"
    """
    words, tags = record[words_field], record[label_field]
    if not all(isinstance(word, str) for word in words):
        return f"field {words_field!r} must be a list of texts"
    if len(words) != len(tags):
        return f"field {label_field!r} names {len(tags)} classes for {len(words)} words in " + repr(
            words_field
        )
    if any(_place(tag, labels) is None for tag in tags):
        return f"each entry of field {label_field!r} must be one of {_listed(labels)}"
    return None


def tokenize_classes(
    *,
    records: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    text_field: str,
    label_field: str,
    labels: Sequence[str],
) -> list[Example]:
    """Turn each text and its class into `input_ids` and the number `labels`.

    Args:
        records: what `read_records` returns, without complaints.
        tokenizer: the base model's.
        max_length: tokens kept of each text, from its beginning.
        text_field: field of the text.
        label_field: field of its class: a name in `labels`, or its place there.
        labels: the names of all classes.
    """
    return [
        {
            "input_ids": _readable(_tokens(tokenizer, record[text_field], max_length), tokenizer),
            "labels": _place(record[label_field], labels),
        }
        for record in records
    ]


def tokenize_tags(
    *,
    records: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    words_field: str,
    label_field: str,
    labels: Sequence[str],
) -> list[Example]:
    """Turn words and their classes into `input_ids` and `labels`, one a token.

    A word's class stands at its first token; the others, and special tokens, teach nothing.

    Args:
        records: what `read_records` returns, without complaints.
        tokenizer: the base model's.
        max_length: tokens kept of each record, from its beginning.
        words_field: field of the words.
        label_field: field of their classes, as many.
        labels: the names of all classes.
    """
    return [
        _tagged(record[words_field], record[label_field], labels, tokenizer, max_length)
        for record in records
    ]


def _tagged(
    words: Sequence[str],
    tags: Sequence[Any],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Example:
    whole: list[int] = []
    first: list[int] = []
    for position, (word, tag) in enumerate(zip(words, tags, strict=True)):
        # Word by word, so that no tokenizer needs to know where words begin.
        pieces = tokenizer(f" {word}" if position else word, add_special_tokens=False)["input_ids"]
        whole += pieces
        first += [_place(tag, labels) or 0, *[IGNORED] * len(pieces)][: len(pieces)]
    before, after = _surroundings(tokenizer)
    room = max(0, max_length - len(before) - len(after))
    ids = [*before, *whole[:room], *after]
    marks = [*[IGNORED] * len(before), *first[:room], *[IGNORED] * len(after)]
    return {"input_ids": ids, "labels": marks} if ids else _empty(tokenizer)


def _surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start], dressed[start + len(bare) :]
    return [], []


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[int]:
    tokens: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    return tokens


def _readable(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens, or one that stands for an empty text, which no model can read."""
    return tokens or [_filler(tokenizer)]


def _empty(tokenizer: PreTrainedTokenizerBase) -> Example:
    return {"input_ids": [_filler(tokenizer)], "labels": [IGNORED]}


def _filler(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.pad_token_id or tokenizer.eos_token_id or 0)


def _place(label: Any, labels: Sequence[str]) -> int | None:
    """A class's place among all, from its name or from that place itself, in digits too."""
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if isinstance(label, str):  # as all cells of a CSV file are
        label = int(label) if re.fullmatch("[0-9]{1,6}", label) else None
    whole = isinstance(label, int) and not isinstance(label, bool)
    return label if whole and 0 <= label < len(labels) else None


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels)}, or its place from 0 to {len(labels) - 1}"
