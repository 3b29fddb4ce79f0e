"""Which tokens of an example are read, and which are learned.

Plain text is learned whole; of a prompt and its completion, only the completion; of a chat, only
the assistant's turns. Labels stand where their tokens stand (the loss shifts them). What is longer
than `max_length` is cut at its end, and in front where little of what is learned would be left.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpacc.data.chat_spans import Chat, ChatError
from dpacc.data.chats import as_one_chat, pair_complaint, tools_complaint, turn_complaint
from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = dict[str, Any]

IGNORED = -100
"""The label of a token that is read but not learned."""

TOOLS_FIELD = "tools"
"""Where a chat's record says what the assistant may call."""

_TEXTS_AT_ONCE = 1_000
_ALL_TOKENS = 1 << 40
_MOST_NUMBERS = 10


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
        records: what [`read_records`][dpacc.data.records.read_records] returns.
        tokenizer: the base model's.
        max_length: tokens kept of each example: the first ones, unless a prompt leaves less than
            half of them to what is learned; its beginning then gives way.
        text_field: field of plain text, used when no other field is named.
        prompt_field: field that is read; needs `completion_field`.
        completion_field: field that is learned, joined to the prompt as it is. Where both are lists
            of messages they make one chat, of which the completion's assistant is learned.
        messages_field: field of chat messages, formatted by the tokenizer's chat template, with
            the record's `tools`, if it has any.
        learn_end: whether a text or completion is followed by the end token.
        answers: all completions that there are, each one token; labels are places among them.

    Raises:
        ConfigurationError: no chat template, or a record that it refuses.
    """
    if messages_field is not None:
        _require_chat_template(tokenizer)
        examples = _chats(records, messages_field, tokenizer)
    elif prompt_field is not None and completion_field is not None:
        fields = (prompt_field, completion_field)
        if _hold_messages(records, fields):
            if answers is not None:
                raise ConfigurationError(
                    f"answers are texts, and {completion_field!r} holds messages: leave answers out"
                )
            return tokenize_examples(
                records=_joined(records, fields),
                tokenizer=tokenizer,
                max_length=max_length,
                messages_field="messages",
            )
        examples = [
            _pair(record[prompt_field], record[completion_field], tokenizer, learn_end)
            for record in records
        ]
        if answers is not None:
            for example, record in zip(examples, records, strict=True):
                example["labels"][-1] = answers.index(record[completion_field])
    else:
        examples = _plain([r[text_field] for r in records], tokenizer, max_length, learn_end)
    return [_cut(example, max_length, tokenizer) for example in examples]


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
    learn_end: bool,
) -> Example:
    """The prompt is read; the completion, and that it ends, is learned."""
    read = _whole(tokenizer, prompt)["input_ids"]
    said = _whole(tokenizer, completion, add_special_tokens=False)["input_ids"]
    learned = _with_end(said, tokenizer) if learn_end else said
    return {"input_ids": read + learned, "labels": [IGNORED] * len(read) + learned}


def _hold_messages(records: Sequence[Mapping[str, Any]], fields: tuple[str, str]) -> bool:
    """Whether prompts and completions are lists of messages; what is mixed is refused."""
    prompt, completion = fields
    faults: dict[str, list[int]] = {}
    for number, record in enumerate(records, 1):
        reason = pair_complaint(record[prompt], record[completion], fields=fields)
        if reason is not None:
            faults.setdefault(reason, []).append(number)
    if faults:
        raise ConfigurationError("; ".join(_named(why, at) for why, at in faults.items()))
    kinds = {isinstance(record[prompt], list) for record in records}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"fields {prompt!r} and {completion!r} hold text in some records and lists of messages "
            "in others: write all of them in one way"
        )
    return kinds == {True}


def _joined(
    records: Sequence[Mapping[str, Any]], fields: tuple[str, str]
) -> list[Mapping[str, Any]]:
    prompt, completion = fields
    return [
        {
            "messages": as_one_chat(record[prompt], record[completion]),
            TOOLS_FIELD: record.get(TOOLS_FIELD),
        }
        for record in records
    ]


def _whole(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> Any:
    # Without a length the tokenizer would say on the screen how long a private text is.
    return tokenizer(text, truncation=True, max_length=_ALL_TOKENS, **options)


def _with_end(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Add the end token; the cut to `max_length` takes it off a text that was cut."""
    end = tokenizer.eos_token_id
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, end]


def _cut(example: Example, max_length: int, tokenizer: PreTrainedTokenizerBase) -> Example:
    """The first `max_length` tokens, or later ones if those hold too little of what is learned."""
    tokens, labels = example["input_ids"], example["labels"]
    if not tokens:
        # A model cannot read zero tokens; one that is not learned stands in.
        filler = tokenizer.pad_token_id or tokenizer.eos_token_id or 0
        return {"input_ids": [filler], "labels": [IGNORED]}
    start = _first_kept(labels, max_length)
    begun = 1 if start and tokens[0] == tokenizer.bos_token_id else 0
    return {
        name: [*each[:begun], *each[start + begun : start + max_length]]
        for name, each in example.items()
    }


def _first_kept(labels: Sequence[int], max_length: int) -> int:
    """Where an example is cut off in front: so that half of what is kept may be learned.

    >>> _first_kept([IGNORED] * 6 + [1, 2], max_length=4)
    4
    >>> _first_kept([IGNORED] * 2 + [1, 2, 3, 4], max_length=4)
    0
    """
    # The first token is never predicted.
    first = next((at for at in range(1, len(labels)) if labels[at] != IGNORED), 0)
    run = itertools.takewhile(lambda label: label != IGNORED, labels[first:])
    wanted = min(sum(1 for _ in run), max(1, max_length // 2))
    return max(0, first + wanted - max_length)


# --- chats --------------------------------------------------------------------------------


def _require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "this model's tokenizer has no chat template: use --prompt_field and "
            "--completion_field with plain text, or the model's instruct version"
        )
    if not tokenizer.is_fast:
        raise ConfigurationError("messages_field needs a fast tokenizer; this model has none")


def _chats(
    records: Sequence[Mapping[str, Any]], field: str, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """All chats, or what is wrong with any of them, by their numbers."""
    examples: list[Example] = []
    faults: dict[str, list[int]] = {}
    for number, record in enumerate(records, 1):
        reason = turn_complaint(record[field]) or tools_complaint(record.get(TOOLS_FIELD))
        try:
            if reason is None:
                examples.append(_chat(record[field], record.get(TOOLS_FIELD), tokenizer))
        except ChatError as fault:
            reason = str(fault)
        if reason is not None:
            faults.setdefault(reason, []).append(number)
    if faults:
        raise ConfigurationError("; ".join(_named(why, at) for why, at in faults.items()))
    return examples


def _named(reason: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    more = f" and {len(numbers) - _MOST_NUMBERS} more" if len(numbers) > _MOST_NUMBERS else ""
    return f"record{'s' if len(numbers) > 1 else ''} {shown}{more}: {reason}"


def _chat(messages: Sequence[Any], tools: Any, tokenizer: PreTrainedTokenizerBase) -> Example:
    """The assistant's turns are learned, each with the token that ends it."""
    chat = Chat(messages, tools, tokenizer)
    spans = chat.spans()
    tokens = _whole(
        tokenizer,
        chat.text,
        add_special_tokens=False,  # the template wrote them
        return_offsets_mapping=True,
    )
    labels = [
        token if any(start <= first < end for start, end in spans) else IGNORED
        for token, (first, _) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
    ]
    return {"input_ids": tokens["input_ids"], "labels": labels}
