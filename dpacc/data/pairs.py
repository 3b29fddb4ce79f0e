"""Preference pairs as tokens: a prompt, the answer that was chosen, and the one that was rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpacc.data.chats import pair_complaint
from dpacc.data.sequences import joined
from dpacc.data.supervision import Example, tokenize_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHOSEN, REJECTED = "chosen", "rejected"


def tokenize_pairs(
    *,
    records: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    prompt_field: str = "prompt",
    learn_end: bool = True,
) -> list[Example]:
    """Turn each record into one example of two sequences, the chosen answer's first.

    Each is the prompt, of which nothing is learned, and one answer; texts, or lists of chat
    messages that the tokenizer's template joins. A pair is never dropped: one of whose answers
    nothing is left to learn takes part with loss zero.

    Args:
        records: with `chosen`, `rejected` and the prompt, all texts or all lists of messages.
        tokenizer: the base model's.
        max_length: tokens kept of each of the two sequences, as `tokenize_examples` keeps them.
        prompt_field: field that both answers follow.
        learn_end: whether an answer of plain text is followed by the end token.

    Raises:
        ConfigurationError: no chat template, or a record that it refuses.
    """
    answers = [
        tokenize_examples(
            records=records,
            tokenizer=tokenizer,
            max_length=max_length,
            prompt_field=prompt_field,
            completion_field=field,
            learn_end=learn_end,
        )
        for field in (CHOSEN, REJECTED)
    ]
    return [joined(both) for both in zip(*answers, strict=True)]


def preference_complaint(record: Mapping[str, Any], *, prompt_field: str) -> str | None:
    """What is wrong with a record, in words that hold none of its own; None if nothing.

    >>> preference_complaint({"prompt": "a", "chosen": "b", "rejected": "c"}, prompt_field="prompt")
    >>> preference_complaint({"prompt": "a", "chosen": "b", "rejected": []}, prompt_field="prompt")
    "fields 'prompt' and 'rejected' must both be text, or both lists of messages"
    """
    for field in (CHOSEN, REJECTED):
        found = pair_complaint(record[prompt_field], record[field], fields=(prompt_field, field))
        if found is not None:
            return found
    return None
