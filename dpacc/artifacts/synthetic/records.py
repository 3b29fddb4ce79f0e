"""What becomes of what a model wrote: a record with the training data's fields, or a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpacc.artifacts.synthetic.generation import Written
from dpacc.artifacts.synthetic.requests import Request, messages_of
from dpacc.recipe.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONS: Mapping[str, str] = {
    "truncated": "no end within the tokens that there was room for",
    "broken": "bytes that are no text",
    "empty": "nothing but spaces",
    "duplicated": "the same as an earlier synthetic record",
}
"""Why a record is dropped, and what that means. None of them looks at private data."""


def record_of(
    *,
    request: Request,
    written: Written,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any] | str:
    """A record, or the reason for which it is dropped.

    Args:
        request: what was given.
        written: what the model went on with.
        config: of the run: the names of the fields.
        tokenizer: the base's.
    """
    text = str(tokenizer.decode(written.tokens, skip_special_tokens=True))
    if not written.ended:
        return "truncated"
    if "\ufffd" in text:
        return "broken"
    if not text.strip():
        return "empty"
    return dict(request.fields) | _filled(request, written, text, config, tokenizer)


def line_of(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON, equal for equal records.

    >>> line_of({"text": "déjà vu"})
    '{"text": "déjà vu"}'
    """
    return json.dumps(record, ensure_ascii=False)


def _filled(
    request: Request,
    written: Written,
    text: str,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    messages = messages_of(request.fields, config)
    if messages is not None:
        answer = _as_answer(text, like=messages[-1])
        if config.messages_field is not None:
            return {config.messages_field: [*messages, answer]}
        return {str(config.completion_field): [answer]}
    if config.completion_field is not None:
        return {config.completion_field: text}
    beginning = request.fields[config.text_field]
    if not beginning:
        return {config.text_field: text}
    whole = tokenizer.decode([*request.tokens, *written.tokens], skip_special_tokens=True)
    return {config.text_field: str(whole)}


def _as_answer(text: str, *, like: Mapping[str, Any]) -> dict[str, str]:
    """The assistant's message, in the words of the one before it."""
    if "role" in like:
        return {"role": "assistant", "content": text}
    return {"from": "gpt", "value": text}
