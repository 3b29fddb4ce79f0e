"""Blocks that were cut from joined texts: there a record shifts all that follow, so none is a unit.

Who joins all texts and cuts the whole into equal blocks (as `group_texts` of transformers' examples
and packing do) makes rows of several records each. One record more changes every later row, and
(ε, δ) for one row says next to nothing about one record. What shows it is refused; where equal
lengths alone point to it, a warning asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from dpacc.errors import PrivacyError

_LOOKED_AT = 256
_FEWEST = 16
_SHORTEST = 8
_PACKED = ("seq_lengths", "cu_seq_lens_q", "cu_seqlens")
_REMEDY = (
    "make one example of each record, cut to a length where it must be, such as tokenizer(text, "
    "truncation=True), without group_texts or packing"
)

Row = npt.NDArray[Any]


def refuse_joined_texts(*, dataset: Sequence[Any], collate: Any, model: nn.Module) -> None:
    """Refuse rows that hold several records each, and warn where they may.

    At most 256 examples, evenly spaced, are looked at. Equal lengths without padding are what
    blocks have in common with texts that were all cut to one length; where a tokenizer begins each
    text with a token of its own, blocks are those that mostly begin without it.

    Args:
        dataset: the private examples.
        collate: makes a batch of them.
        model: whose configuration names the token that begins a text, and the one that pads.

    Raises:
        PrivacyError: examples are joined, or the collator joins them.
    """
    _refuse_joining_collator(collate)
    every = max(1, len(dataset) // _LOOKED_AT)
    looked_at = [dataset[place] for place in range(0, len(dataset), every)]
    held = [each for each in looked_at if isinstance(each, Mapping)]
    if any(_is_packed(each) for each in held):
        raise PrivacyError(
            "an example holds several sequences (packing), so adding one record changes many "
            f"examples; {_REMEDY}"
        )
    config = next((m.config for m in model.modules() if hasattr(m, "config")), None)
    rows = [row for each in held if (row := _tokens(each)) is not None]
    if not _are_equal_blocks(rows, held, pad=getattr(config, "pad_token_id", None)):
        return
    begins = getattr(config, "bos_token_id", None)
    if begins is not None and _begin_in_the_middle(rows, begins):
        raise PrivacyError(
            f"all examples are {len(rows[0])} tokens long, texts begin in the middle of them, and "
            "most begin in the middle of a text: they are blocks of joined texts, and adding one "
            f"record changes all that follow; {_REMEDY}"
        )
    if len({int(row[0]) for row in rows}) > 1:
        warnings.warn(
            f"all examples are {len(rows[0])} tokens long and none is padded. Where they are "
            "records cut to that length, nothing is wrong; where texts were joined and cut into "
            "blocks, one record more changes all blocks after it, which no guarantee for one "
            f"example covers: {_REMEDY}",
            stacklevel=3,
        )


def _refuse_joining_collator(collate: Any) -> None:
    for inner in (collate, getattr(collate, "data_collator", None), getattr(collate, "func", None)):
        if type(inner).__name__ == "DataCollatorWithFlattening" or getattr(
            inner, "padding_free", False
        ):
            raise PrivacyError(
                f"{type(inner).__name__} joins the examples of a batch in one row, so none has a "
                "gradient of its own; pad them instead, and leave padding_free out"
            )


def _is_packed(example: Mapping[str, Any]) -> bool:
    """Whether a row says itself that it holds several sequences."""
    if any(name in example and np.size(example[name]) > 1 for name in _PACKED):
        return True
    positions = np.asarray(example.get("position_ids", ()))
    return positions.ndim == 1 and bool((np.diff(positions) < 0).any())


def _tokens(example: Mapping[str, Any]) -> Row | None:
    row = np.asarray(example.get("input_ids"))
    return row if row.ndim == 1 and row.dtype.kind in "iu" else None


def _are_equal_blocks(
    rows: Sequence[Row], examples: Sequence[Mapping[str, Any]], pad: int | None
) -> bool:
    """Whether all are of one length, without padding, and wholly learned."""
    if len(rows) < max(_FEWEST, len(examples)) or len({len(row) for row in rows}) > 1:
        return False
    if len(rows[0]) < _SHORTEST:
        return False
    padded = any(len(row) > 1 and row[-1] == row[-2] == pad for row in rows)
    return not padded and all(_is_whole(each) for each in examples)


def _is_whole(example: Mapping[str, Any]) -> bool:
    masks = [example[name] for name in ("attention_mask", "completion_mask") if name in example]
    labels = np.asarray(example.get("labels", example["input_ids"]))
    learned = labels.ndim == 1 and not (labels[1:] == -100).any()
    return learned and all(np.all(mask) for mask in masks)


def _begin_in_the_middle(rows: Sequence[Row], begins: int) -> bool:
    inside = sum(bool((row[1:] == begins).any()) for row in rows)
    at_the_start = sum(int(row[0]) == begins for row in rows)
    return inside > 1 and 2 * at_the_start < len(rows)
