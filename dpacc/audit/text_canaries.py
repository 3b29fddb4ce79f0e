"""Canaries in text: what is written into the data, so that it can be seen in a finished model.

A sentence of random tokens teaches all of them at once, and such sentences pull a model the same
way: towards random tokens. A canary that teaches one token of its own, behind random ones, pulls in
a direction of its own, and can be told from the others. A text that the base itself samples at a
high temperature is one that a person can read, and that surprises the base.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dpacc.data.supervision import IGNORED, Example
from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpacc.audit.verdict import Coins

TokenKind = Literal["unique-tokens", "rare-tokens", "new-tokens", "random"]
CanaryKind = Literal[TokenKind, "high-temperature"]

TEMPERATURE = 1.5
_AT_ONCE = 64


def canaries_for(
    *,
    kind: CanaryKind,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    canaries: int,
    tokens: int,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> list[Example]:
    """m canaries of any kind for one base, before anything is trained.

    Args:
        kind: `high-temperature` as [`sampled_texts`][dpacc.audit.text_canaries.sampled_texts] has
            it, the others as [`canary_texts`][dpacc.audit.text_canaries.canary_texts].
        model: the frozen base; it learns to know `new-tokens` here.
        tokenizer: the base's.
        canaries: m.
        tokens: of each, at least 2.
        temperature: of `high-temperature` alone, above 0.
        seed: of everything that is drawn; public.

    Raises:
        ConfigurationError: canaries would not be distinct.
    """
    if kind == "high-temperature":
        return sampled_texts(
            model=model,
            tokenizer=tokenizer,
            canaries=canaries,
            tokens=tokens,
            temperature=temperature,
            seed=seed,
        )
    if kind == "new-tokens":
        add_new_tokens(model=model, known=len(tokenizer), tokens=canaries, seed=seed)
    return canary_texts(
        kind=kind,
        canaries=canaries,
        tokens=tokens,
        vocabulary=len(tokenizer),
        avoid=tokenizer.all_special_ids,
        seed=seed,
    )


def canary_texts(
    *,
    kind: TokenKind,
    canaries: int,
    tokens: int,
    vocabulary: int,
    avoid: Collection[int] = (),
    seed: int = 0,
) -> list[Example]:
    """m canaries of so many tokens each.

    Args:
        kind: `random` teaches all of its random tokens. The others teach their last token alone,
            which no other canary has: any one (`unique-tokens`), one of the last of the vocabulary,
            where a tokenizer by merges has its rarest (`rare-tokens`), or one that no text has
            (`new-tokens`; see [`add_new_tokens`][dpacc.audit.text_canaries.add_new_tokens]).
        canaries: m.
        tokens: of each, at least 2.
        vocabulary: of the tokenizer, before new tokens.
        avoid: the tokenizer's special tokens.
        seed: of the tokens; public.

    Raises:
        ConfigurationError: more canaries than tokens.

    Source: random tokens after Carlini et al. 2019 (arXiv 1802.08232); tokens of their own after
    Panda et al. 2025 (arXiv 2503.06808).

    >>> texts = canary_texts(kind="unique-tokens", canaries=3, tokens=4, vocabulary=50)
    >>> [text["labels"][:3] for text in texts]
    [[-100, -100, -100], [-100, -100, -100], [-100, -100, -100]]
    >>> len({text["labels"][3] for text in texts})
    3
    """
    usable = np.setdiff1d(np.arange(vocabulary), np.array(sorted(avoid), dtype=int))
    rng = np.random.default_rng(seed)
    if kind == "random":
        drawn = rng.choice(usable, size=(canaries, tokens))
        return [{"input_ids": ids, "labels": list(ids)} for ids in drawn.tolist()]
    targets = _targets(kind, usable, canaries, vocabulary, rng)
    prompts = rng.choice(usable, size=(canaries, tokens - 1))
    return [
        {"input_ids": [*prompt, target], "labels": [*[IGNORED] * len(prompt), target]}
        for prompt, target in zip(prompts.tolist(), targets.tolist(), strict=True)
    ]


def sampled_texts(
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    canaries: int,
    tokens: int,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> list[Example]:
    """m distinct texts that a base samples from softmax(logits / temperature), all learned.

    Each goes on from a token drawn uniformly, so that what is learned is just what was sampled.

    Args:
        model: the frozen base, without adapters or with ones that change nothing yet.
        tokenizer: the base's; its special tokens are not drawn.
        canaries: m.
        tokens: of each with the one that it goes on from, at least 2.
        temperature: above 0.
        seed: of the beginnings and of what is sampled; public.

    Raises:
        ConfigurationError: a whole batch brought no text that was not there before.

    Source: Mitchell et al. 2026 (arXiv 2606.10481), whose temperatures are 0.8 and above, and whose
    texts go on from prompts like the private data.
    """
    from dpacc.artifacts.synthetic.generation import Sampling, write_batch
    from dpacc.artifacts.synthetic.requests import Request

    sampling = Sampling(
        temperature=temperature,
        top_p=1.0,
        kept=1,
        room=tokens - 1,
        least=tokens - 1,
        among=None,
        seed=seed,
    )
    usable = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    rng = np.random.default_rng(seed)
    distinct: dict[tuple[int, ...], None] = {}
    for number in count():
        requests = [
            Request(fields={}, tokens=(first,), ends=(tokenizer.eos_token_id,))
            for first in rng.choice(usable, size=_AT_ONCE).tolist()
        ]
        written = write_batch(
            model=model, tokenizer=tokenizer, requests=requests, sampling=sampling, number=number
        )
        known = len(distinct)
        pairs = zip(requests, written, strict=True)
        distinct |= dict.fromkeys((*begun.tokens, *each.tokens) for begun, each in pairs)
        if len(distinct) >= canaries:
            break
        if len(distinct) == known:
            raise ConfigurationError(
                f"{canaries} canaries cannot each have a text of their own: the base samples only "
                f"{known} of {tokens} tokens; use more tokens, or a higher temperature"
            )
    return [{"input_ids": [*ids], "labels": [*ids]} for ids in [*distinct][:canaries]]


def add_new_tokens(*, model: PreTrainedModel, known: int, tokens: int, seed: int = 0) -> None:
    """Let a base know tokens that no text has, each by a random embedding of the usual size.

    Args:
        model: without adapters; its embeddings stay frozen, and the new ones are public.
        known: how many tokens its tokenizer has; the new ones follow.
        tokens: how many.
        seed: of the embeddings.

    Source: Panda et al. 2025 (arXiv 2503.06808).
    """
    import torch

    if known + tokens > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(known + tokens, mean_resizing=False)
    drawn = torch.Generator().manual_seed(seed)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    for weight in {
        id(layer.weight): layer.weight for layer in layers if layer is not None
    }.values():
        new = torch.randn(tokens, weight.shape[1], generator=drawn)
        with torch.no_grad():
            weight[known : known + tokens] = new.to(weight) * weight[:known].std()


def left_out(example: Example) -> Example:
    """The same example with nothing to learn: it adds zero to every sum, and N stays the same.

    >>> left_out({"input_ids": [5, 6], "labels": [5, 6]})
    {'input_ids': [5, 6], 'labels': [-100, -100]}
    """
    return {**example, "labels": [IGNORED] * len(example["labels"])}


def planted(texts: Sequence[Example], included: Coins) -> list[Example]:
    """Canaries as they are learned: those that are not included have nothing to learn.

    They take part with loss zero, so that N is the same whatever the coins say.

    >>> both = [{"input_ids": [5, 6], "labels": [5, 6]}] * 2
    >>> [each["labels"] for each in planted(both, np.array([True, False]))]
    [[5, 6], [-100, -100]]
    """
    pairs = zip(texts, included, strict=True)
    return [text if inside else left_out(text) for text, inside in pairs]


def as_if_all_in(
    *, standing: Sequence[Mapping[str, Any]], texts: Sequence[Example]
) -> list[dict[str, Any]]:
    """The canaries as they stand in the data, each with all that it would teach.

    What is scored must not tell which were left out.

    >>> text = {"input_ids": [5, 6], "labels": [-100, 6]}
    >>> as_if_all_in(standing=[{**left_out(text), "place": 3}], texts=[text])
    [{'input_ids': [5, 6], 'labels': [-100, 6], 'place': 3}]
    """
    return [
        {**stands, "labels": text["labels"]} for stands, text in zip(standing, texts, strict=True)
    ]


def _targets(
    kind: TokenKind,
    usable: npt.NDArray[np.int_],
    canaries: int,
    vocabulary: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int_]:
    """[m], a token for each canary."""
    if kind == "new-tokens":
        return np.arange(vocabulary, vocabulary + canaries)
    if canaries > len(usable):
        raise ConfigurationError(
            f"{canaries} canaries cannot each have a token of their own: there are {len(usable)}; "
            "use fewer canaries, or canary_kind=new-tokens"
        )
    if kind == "rare-tokens":
        return rng.permutation(usable[-canaries:])
    return rng.choice(usable, size=canaries, replace=False)
