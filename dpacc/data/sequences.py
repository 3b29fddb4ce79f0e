"""Examples of several sequences, such as the two answers of a preference pair.

In a dataset such an example is one row: its sequences stand one after the other in `input_ids` and
`labels`, and `sequence_ids` says of each token whose it is. In a batch every field by token is
[examples, sequences, tokens], so that the first dimension counts examples, as everywhere; the model
reads [examples · sequences, tokens], an example's sequences next to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SEQUENCE_IDS = "sequence_ids"
"""The field that says which of its example's sequences a token belongs to, from 0."""


def joined(sequences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One example of several sequences that are all learned from at once.

    Args:
        sequences: with the same fields, each a list with one entry a token.

    >>> joined([{"input_ids": [5, 6]}, {"input_ids": [5, 7, 8]}])
    {'input_ids': [5, 6, 5, 7, 8], 'sequence_ids': [0, 0, 1, 1, 1]}
    """
    whole: dict[str, Any] = {
        name: [entry for each in sequences for entry in each[name]] for name in sequences[0]
    }
    lengths = [len(each["input_ids"]) for each in sequences]
    whole[SEQUENCE_IDS] = [number for number, tokens in enumerate(lengths) for _ in range(tokens)]
    return whole


def lengths_of(example: Mapping[str, Any]) -> list[int]:
    """How many tokens each of an example's sequences has; usually it has one.

    >>> lengths_of({"input_ids": [5, 6, 5], "sequence_ids": [0, 0, 1]})
    [2, 1]
    >>> lengths_of({"input_ids": [5, 6, 5]})
    [3]
    """
    if SEQUENCE_IDS not in example:
        return [len(example["input_ids"])]
    return [len([*tokens]) for _, tokens in groupby(example[SEQUENCE_IDS])]


def padded_tokens(example: Mapping[str, Any]) -> int:
    """How many tokens an example takes in a batch that is as wide as its longest sequence.

    >>> padded_tokens({"input_ids": [5, 6, 5], "sequence_ids": [0, 0, 1]})
    4
    """
    lengths = lengths_of(example)
    return len(lengths) * max(lengths)


def parted(example: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sequences of an example, each with the fields that have one entry a token.

    >>> parted({"input_ids": [5, 6, 5], "sequence_ids": [0, 0, 1], "weight": 2.0})
    [{'input_ids': [5, 6]}, {'input_ids': [5]}]
    """
    tokens = len(example["input_ids"])
    by_token = {
        name: values
        for name, values in example.items()
        if name != SEQUENCE_IDS and isinstance(values, Sequence) and len(values) == tokens
    }
    parts, start = [], 0
    for length in lengths_of(example):
        stop = start + length
        parts.append({name: [*values[start:stop]] for name, values in by_token.items()})
        start = stop
    return parts


def sequences_each(batch: Any) -> int:
    """How many sequences each example of a batch has: what [examples, sequences, tokens] says."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if getattr(ids, "ndim", 0) != 3 or getattr(mask, "shape", None) != ids.shape:  # type: ignore[union-attr]
        return 1
    return int(ids.shape[1])  # type: ignore[union-attr]


def as_rows(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch as a model reads it: [examples, sequences, tokens] becomes [rows, tokens].

    Fields of other shapes stay as they are, and so does a batch of one sequence an example.
    """
    if batch["input_ids"].ndim == 2:
        return dict(batch)
    shape = batch["input_ids"].shape
    return {
        name: value.flatten(0, 1) if value.shape[:3] == shape else value
        for name, value in batch.items()
    }
