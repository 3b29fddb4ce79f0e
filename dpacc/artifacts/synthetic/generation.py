"""Tokens that a model writes, in batches and with the KV cache, from a public seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from dpacc.artifacts.synthetic.requests import Request
from dpacc.recipe.evaluation import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_FEWEST_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn, from softmax(logits / temperature).

    Attributes:
        temperature: at least 0, which takes the likeliest token.
        top_p: only the likeliest tokens that have this much probability together are drawn.
        kept: tokens of a request that are read: its last ones, where it has more.
        room: tokens that are written at most, with the end.
        least: tokens that are written before an end is drawn.
        among: the only tokens that are drawn, one a record; None for all of the vocabulary.
        seed: a public one; batch i is drawn from (seed, i) alone.
    """

    temperature: float
    top_p: float
    kept: int
    room: int
    least: int
    among: tuple[int, ...] | None
    seed: int


@dataclass(frozen=True)
class Written:
    """What a model wrote after a request's tokens.

    Attributes:
        tokens: without the one that ended it.
        ended: whether one did.
    """

    tokens: list[int]
    ended: bool


def write_batch(
    *,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    sampling: Sampling,
    number: int,
) -> list[Written]:
    """Go on from each request's tokens, all of them in one batch.

    Tokens that the tokenizer has no words for, and special ones but the end, are not drawn. Rows
    that have ended leave the batch whenever it has grown as long again.

    Args:
        model: a causal LM with its adapter; its mode is left as it was.
        tokenizer: the base's.
        requests: padded on the left to the longest.
        sampling: how tokens are drawn, and how many.
        number: of this batch.
    """
    begun = [
        begun_by(request.tokens, sampling.kept, tokenizer.bos_token_id) for request in requests
    ]
    ends = sorted({end for request in requests for end in request.ends})
    room, least = (sampling.room, sampling.least) if sampling.among is None else (1, 0)
    size = model.get_output_embeddings().weight.shape[0]
    suppressed = never_drawn(size, tokenizer, ends, sampling.among) or None
    rows: list[list[int]] = [[] for _ in requests]
    waiting, written = list(range(len(requests))), 0
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(seed_of(sampling.seed, number))
        while waiting and written < room:
            inputs, mask = _padded_left(
                [[*begun[at], *rows[at]] for at in waiting], padding=tokenizer.pad_token_id
            )
            # What was written is read anew, which must not take longer than writing does.
            more = min(room - written, max(_FEWEST_AT_ONCE, inputs.shape[1]))
            model.generation_config = _drawn_by(
                sampling,
                tokenizer,
                max_new_tokens=more,
                min_new_tokens=min(more, max(0, least - written)),
                eos_token_id=ends,
                suppress_tokens=suppressed,
            )
            said = model.generate(
                input_ids=inputs.to(model.device), attention_mask=mask.to(model.device)
            )
            for at, tokens in zip(waiting, said[:, inputs.shape[1] :].tolist(), strict=True):
                rows[at] += tokens
            waiting = [at for at in waiting if not set(ends) & {*rows[at]}]
            written += more
    if sampling.among is not None:
        return [Written(row[:1], ended=True) for row in rows]
    return [until_end(row, request.ends) for row, request in zip(rows, requests, strict=True)]


def _drawn_by(
    sampling: Sampling, tokenizer: PreTrainedTokenizerBase, **others: Any
) -> GenerationConfig:
    """All settings are said here: a base's own would otherwise fill the gaps."""
    return GenerationConfig(
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or 1.0,
        top_p=sampling.top_p if sampling.temperature else 1.0,
        top_k=0 if sampling.temperature else None,
        repetition_penalty=1.0,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **others,
    )


def room_for(
    *, requests: Sequence[Request], max_length: int, new_tokens: int | None
) -> tuple[int, int]:
    """Tokens that are read of each request, and that may be written after it, as in training.

    Args:
        requests: what is given.
        max_length: of both together.
        new_tokens: to be written at most; None takes what is left, and at least half.

    >>> long = Request(fields={}, tokens=(5,) * 90, ends=(0,))
    >>> room_for(requests=[long], max_length=100, new_tokens=None)
    (50, 50)
    >>> room_for(requests=[long], max_length=100, new_tokens=20)
    (80, 20)
    """
    longest = max(len(each.tokens) for each in requests)
    wanted = max(1, max_length // 2) if new_tokens is None else max_length - new_tokens
    kept = min(longest, wanted)
    return kept, new_tokens or max_length - kept


def begun_by(tokens: Sequence[int], kept: int, first: int | None) -> list[int]:
    """The last tokens of a prompt that is too long, after the one that begins every text."""
    if len(tokens) <= kept:
        return [*tokens]
    begun = [tokens[0]] if tokens[0] == first and kept > 1 else []
    return [*begun, *tokens[len(tokens) - kept + len(begun) :]]


def _padded_left(rows: Sequence[Sequence[int]], *, padding: Any) -> tuple[Tensor, Tensor]:
    """[rows, tokens] of ids and mask, so that every row ends where writing begins."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), int(padding))
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor([*row])
        mask[at, width - len(row) :] = 1
    return ids, mask


def never_drawn(
    size: int,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    among: Sequence[int] | None,
) -> list[int]:
    """Tokens that are not drawn: special ones, those without words, and all but the answers."""
    if among is not None:
        return sorted({*range(size)} - {*among})
    nameless = range(min(len(tokenizer), size), size)
    return sorted({*tokenizer.all_special_ids, *nameless} - {*ends})


def until_end(tokens: Sequence[int], ends: Sequence[int]) -> Written:
    """What stands before the first of the tokens that end it."""
    for at, token in enumerate(tokens):
        if token in ends:
            return Written([*tokens[:at]], ended=True)
    return Written([*tokens], ended=False)


def seed_of(seed: int, number: int, record: int | None = None) -> int:
    """Of a batch, or of one record in it where each is drawn by itself."""
    one = "" if record is None else f", record {record}"
    digest = hashlib.sha256(f"synthetic text, seed {seed}, batch {number}{one}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
