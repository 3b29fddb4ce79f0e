"""What each synthetic record begins with: fields that are given, and tokens to go on from.

Tokens are those that training showed before what it taught: nothing, a prompt, or a chat up to the
assistant's turn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpacc.data.chat_spans import Chat, ChatError
from dpacc.data.supervision import TOOLS_FIELD
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import with_one_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Request:
    """One record to be written.

    Attributes:
        fields: what is given of it, by the names of the training data's fields.
        tokens: what the model goes on from, at least one.
        ends: the tokens that end what it writes.
    """

    fields: Mapping[str, Any]
    tokens: tuple[int, ...]
    ends: tuple[int, ...]


def requests_for(
    *,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    records: int,
    prompts: Sequence[Mapping[str, Any]] | None = None,
    shares: Mapping[str, float] | None = None,
) -> list[Request]:
    """One request for each record, in an order that the public seed shuffles.

    Args:
        config: of the run: the fields, and the seed.
        tokenizer: the base's.
        records: how many.
        prompts: what is given, each as often as any other; None for plain text without a beginning.
        shares: how often each label is given instead, as the prompt (a control code, as in arXiv
            2210.14348): counts are the shares of `records`, rounded by largest remainders.

    Raises:
        ConfigurationError: this form of data needs prompts, or has none, or a chat template is
            missing or refuses one.
    """
    given = _given(config, prompts, shares)
    made = [request_for(fields=fields, config=config, tokenizer=tokenizer) for fields in given]
    if shares is None:
        chosen = [place % len(given) for place in range(records)]
    else:
        chosen = list(_places(counts_of(shares=shares, records=records)))
    random.Random(config.seed).shuffle(chosen)
    return [made[place] for place in chosen]


def counts_of(*, shares: Mapping[str, float], records: int) -> dict[str, int]:
    """How many records of each label: shares of `records`, rounded by largest remainders.

    >>> counts_of(shares={"good": 0.5, "bad": 0.3, "mixed": 0.2}, records=7)
    {'good': 4, 'bad': 2, 'mixed': 1}
    """
    counts = {label: int(share * records) for label, share in shares.items()}
    by_rest = sorted(shares, key=lambda label: counts[label] - shares[label] * records)
    for label in by_rest[: records - sum(counts.values())]:
        counts[label] += 1
    return counts


def _places(counts: Mapping[str, int]) -> Iterator[int]:
    for place, count in enumerate(counts.values()):
        yield from [place] * count


def _given(
    config: TrainingConfig,
    prompts: Sequence[Mapping[str, Any]] | None,
    shares: Mapping[str, float] | None,
) -> list[Mapping[str, Any]]:
    prompt = config.prompt_field
    if shares is not None:
        if prompt is None or "," in prompt or config.messages_field is not None:
            raise ConfigurationError(
                "labels_from gives labels as prompts, and these data have no prompt_field of one "
                "name: leave --labels_from out"
            )
        return [{prompt: label} for label in shares]
    if prompts is not None:
        return [*prompts]
    if prompt is not None or config.messages_field is not None:
        raise ConfigurationError(
            "the run learned what follows prompts, and not the prompts: name public ones with "
            "--prompts, or labels that are prompts with --labels_from"
        )
    return [{config.text_field: ""}]


def request_for(
    *, fields: Mapping[str, Any], config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> Request:
    """What the model goes on from, as training showed it, and what ends it.

    Args:
        fields: what is given of a record.
        config: of the run: the names of the fields.
        tokenizer: the base's.

    Raises:
        ConfigurationError: a chat template is missing, or refuses it.
    """
    end = tokenizer.eos_token_id
    messages = messages_of(fields, config)
    if messages is not None:
        return _answer(fields, messages, tokenizer)
    prompt = prompt_name(config=config)
    if prompt is None:
        tokens = tokenizer(fields[config.text_field])["input_ids"]
    else:
        tokens = tokenizer(with_one_prompt(dict(fields), prompt)[prompt])["input_ids"]
    if tokens[-1:] == [end]:
        tokens = tokens[:-1]
    return Request(fields=fields, tokens=tuple(tokens or [_start(tokenizer)]), ends=(end,))


def untaught_start(
    *, requests: Sequence[Request], tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """The token that stands before what has no beginning, if training showed none there.

    Where a tokenizer puts nothing before a text, its first token is never predicted in training, so
    that how texts begin is not learned.
    """
    start = _start(tokenizer)
    bare = any(request.tokens == (start,) for request in requests)
    shown = tokenizer("")["input_ids"][:1] == [start]
    return str(tokenizer.convert_ids_to_tokens(start)) if bare and not shown else None


def _start(tokenizer: PreTrainedTokenizerBase) -> int:
    """What begins every text, or, where nothing does, what ends the one before it."""
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(found)


def messages_of(fields: Mapping[str, Any], config: TrainingConfig) -> list[Any] | None:
    """The messages that are given; None where the prompt is text."""
    given = fields.get(config.messages_field or prompt_name(config=config) or "")
    return given if isinstance(given, list) else None


def prompt_name(*, config: TrainingConfig) -> str | None:
    """The field of what is read before an answer; None of plain text."""
    return config.pair_prompt if config.task == "preference" else config.prompt_field


def _answer(
    fields: Mapping[str, Any], messages: list[Any], tokenizer: PreTrainedTokenizerBase
) -> Request:
    """A chat up to the assistant's turn, which ends as the template ends it."""
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "this model's tokenizer has no chat template: prompts must be text"
        )
    try:
        chat = Chat(messages, fields.get(TOOLS_FIELD), tokenizer)
        text, rest = chat.asked(), chat.end_of_answer()
    except ChatError as fault:
        raise ConfigurationError(f"a prompt cannot be asked: {fault}") from None
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    after = tokenizer(rest.lstrip(), add_special_tokens=False)["input_ids"][:1]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends = dict.fromkeys([*(token for token in after if token in special), tokenizer.eos_token_id])
    return Request(fields=fields, tokens=tuple(tokens), ends=tuple(ends))
