"""Canaries that a base samples itself: what they are, and what they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dpacc.audit.text_canaries import canaries_for, sampled_texts
from dpacc.errors import ConfigurationError
from dpacc.recipe.evaluation import losses_of_texts
from tests.tiny_models import VOCABULARY, collate, tiny_base, tiny_tokenizer

TOKENIZER = tiny_tokenizer([f"word{i}" for i in range(VOCABULARY - 4)])


def peaked_base() -> Any:
    """A tiny base that is surer of its next token than a random one is."""
    base: Any = tiny_base("llama")
    base.lm_head.weight.data *= 20
    return base


def sampled(base: Any, **settings: Any) -> list[Any]:
    """A hundred texts of six tokens, unless the settings say otherwise."""
    chosen = {"canaries": 100, "tokens": 6, **settings}
    return sampled_texts(model=base, tokenizer=TOKENIZER, **chosen)


def test_sampled_texts_are_distinct_and_learned_whole() -> None:
    """Of the asked length, without special tokens, each one's labels its own tokens."""
    texts = sampled(peaked_base(), temperature=0.5, tokens=3)
    assert len({tuple(text["input_ids"]) for text in texts}) == 100
    assert all(text["labels"] == text["input_ids"] for text in texts)
    assert {len(text["input_ids"]) for text in texts} == {3}
    drawn = {token for text in texts for token in text["input_ids"]}
    assert not drawn & {*TOKENIZER.all_special_ids}


def test_the_public_seed_draws_the_texts() -> None:
    """The same seed draws the same, another seed others, and nobody else's draws are moved."""
    base = peaked_base()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    texts = sampled(base, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert texts == sampled(base, seed=1)
    others = {tuple(text["input_ids"]) for text in sampled(base, seed=2)}
    assert len({tuple(text["input_ids"]) for text in texts} - others) > 90


def test_hotter_texts_surprise_the_base_more() -> None:
    """The base's own mean loss of them rises with the temperature."""
    base = peaked_base()
    losses = [
        losses_of_texts(
            model=base, examples=sampled(base, temperature=temperature), collate=collate
        ).mean()
        for temperature in (0.3, 1.0, 3.0)
    ]
    assert losses[0] + 0.5 < losses[1]
    assert losses[1] + 0.5 < losses[2]


def test_the_base_is_left_as_it_was() -> None:
    """Neither its mode nor a weight changes."""
    base = peaked_base().train()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    sampled(base)
    assert base.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_a_base_with_too_few_texts_is_refused() -> None:
    """One that is cold says one thing after each token: told, instead of sampled for ever."""
    with pytest.raises(ConfigurationError, match="or a higher temperature"):
        sampled(peaked_base(), temperature=1e-4, tokens=2, canaries=200)


def test_every_kind_is_made_for_a_base() -> None:
    """As many as asked, no two alike; only new tokens change what the base knows."""
    for kind in ("unique-tokens", "rare-tokens", "new-tokens", "random", "high-temperature"):
        base = peaked_base()
        texts = canaries_for(kind=kind, model=base, tokenizer=TOKENIZER, canaries=20, tokens=4)
        assert len({tuple(text["input_ids"]) for text in texts}) == 20
        known = base.get_input_embeddings().weight.shape[0]
        assert known == VOCABULARY + 20 * (kind == "new-tokens")
