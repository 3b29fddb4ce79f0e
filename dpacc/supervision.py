"""Which tokens of an example are read, and which are learned.

Plain text is learned whole; of a prompt and its completion, only the completion; of a chat, only
the assistant's turns. Labels stand where their tokens stand (the loss shifts them).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = dict[str, Any]

IGNORED = -100
"""The label of a token that is read but not learned."""

_TEXTS_AT_ONCE = 1_000


def tokenize_examples(
    *,
    records: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    text_field: str = "text",
    prompt_field: str | None = None,
    completion_field: str | None = None,
    messages_field: str | None = None,
    learn_end: bool = True,
    answers: Sequence[str] | None = None,
) -> list[Example]:
    """Turn each record into `input_ids` and `labels`, at most `max_length` long.

    An example is never dropped, even when truncation leaves nothing of it to learn: the number of
    examples is part of the privacy plan, and must not depend on what they say. It takes part with
    loss zero.

    Args:
        records: what [`read_records`][dpacc.data.read_records] returns.
        tokenizer: the base model's.
        max_length: tokens kept of each example, from its beginning.
        text_field: field of plain text, used when no other field is named.
        prompt_field: field that is read; needs `completion_field`.
        completion_field: field that is learned, joined to the prompt as it is.
        messages_field: field of chat messages, formatted by the tokenizer's chat template.
        learn_end: whether a text or completion is followed by the end token.
        answers: all completions that there are, each one token; labels are places among them.

    Raises:
        ConfigurationError: no chat template, or a record that it refuses.
    """
    if messages_field is not None:
        _require_chat_template(tokenizer)
        examples = [
            _chat(record[messages_field], tokenizer, max_length, number)
            for number, record in enumerate(records, 1)
        ]
    elif prompt_field is not None and completion_field is not None:
        examples = [
            _pair(record[prompt_field], record[completion_field], tokenizer, max_length, learn_end)
            for record in records
        ]
        if answers is not None:
            for example, record in zip(examples, records, strict=True):
                example["labels"][-1] = answers.index(record[completion_field])
    else:
        examples = _plain([r[text_field] for r in records], tokenizer, max_length, learn_end)
    return [_truncated(example, max_length, tokenizer) for example in examples]


def turn_complaint(messages: Sequence[Any]) -> str | None:
    """What is wrong with a chat's messages, in words that hold none of theirs; None if nothing.

    >>> turn_complaint([{"role": "user"}])
    'message 0 needs text in `role` and `content`'
    """
    for position, message in enumerate(messages):
        fields = message if isinstance(message, Mapping) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            return f"message {position} needs text in `role` and `content`"
    return None


def _plain(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, learn_end: bool
) -> list[Example]:
    """All of a text is learned, and that it ends."""
    tokens: list[list[int]] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = list(texts[start : start + _TEXTS_AT_ONCE])
        tokens += tokenizer(batch, truncation=True, max_length=max_length)["input_ids"]
    ended = [_with_end(each, tokenizer) if learn_end else each for each in tokens]
    return [{"input_ids": each, "labels": list(each)} for each in ended]


def _pair(
    prompt: str,
    completion: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    learn_end: bool,
) -> Example:
    """The prompt is read; the completion, and that it ends, is learned."""
    limits = {"truncation": True, "max_length": max_length}
    read = tokenizer(prompt, **limits)["input_ids"]
    said = tokenizer(completion, add_special_tokens=False, **limits)["input_ids"]
    learned = _with_end(said, tokenizer) if learn_end else said
    return {"input_ids": read + learned, "labels": [IGNORED] * len(read) + learned}


def _with_end(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Add the end token; the cut to `max_length` takes it off a text that was cut."""
    end = tokenizer.eos_token_id
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, end]


def _truncated(example: Example, max_length: int, tokenizer: PreTrainedTokenizerBase) -> Example:
    if not example["input_ids"]:
        # A model cannot read zero tokens; one that is not learned stands in.
        filler = tokenizer.pad_token_id or tokenizer.eos_token_id or 0
        return {"input_ids": [filler], "labels": [IGNORED]}
    return {name: tokens[:max_length] for name, tokens in example.items()}


# --- chats --------------------------------------------------------------------------------


def _require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "this model's tokenizer has no chat template: use --prompt_field and "
            "--completion_field, or the model's instruct version"
        )
    if not tokenizer.is_fast:
        raise ConfigurationError("messages_field needs a fast tokenizer; this model has none")


def _chat(
    messages: Sequence[Any], tokenizer: PreTrainedTokenizerBase, max_length: int, number: int
) -> Example:
    """The assistant's turns are learned, each with the token that ends it."""
    _require_turns(messages, number)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    try:
        text = _render(tokenizer, messages)
        spans = [_span(tokenizer, messages, turn) for turn in turns]
    except Exception as error:  # templates raise what they like, and may quote the chat
        raise ConfigurationError(
            f"the chat template refused record {number} ({type(error).__name__}): check the order "
            "of its roles"
        ) from None
    if not all(text.startswith(edge) for edge in itertools.chain(*spans)):
        raise ConfigurationError(
            f"the chat template rewrites earlier turns of record {number}: give each assistant "
            "turn a record of its own, with the turns before it"
        )
    tokens = tokenizer(
        text,
        add_special_tokens=False,  # the template wrote them
        return_offsets_mapping=True,
        truncation=True,
        max_length=max_length,
    )
    labels = [
        token if any(len(before) <= first < len(after) for before, after in spans) else IGNORED
        for token, (first, _) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
    ]
    return {"input_ids": tokens["input_ids"], "labels": labels}


def _require_turns(messages: Sequence[Any], number: int) -> None:
    complaint = turn_complaint(messages)
    if complaint is not None:
        raise ConfigurationError(f"record {number}: {complaint}")


def _span(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], turn: int
) -> tuple[str, str]:
    """The chat up to the turn's own words, and up to their end."""
    before = _render(tokenizer, messages[:turn], add_generation_prompt=True)
    return before, _render(tokenizer, messages[: turn + 1])


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], **options: Any) -> str:
    if not messages:  # which transformers refuses to render
        return ""
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text
