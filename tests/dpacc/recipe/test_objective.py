"""Answers: the loss of the right one among those that there are, whatever head the model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.evaluation import held_out_perplexity
from dpacc.recipe.objective import answer_tokens, losses_for
from tests.dpacc.losses.test_per_example import Capped
from tests.tiny_models import collate, examples, tiny_base

AMONG = torch.tensor([7, 3, 11])


def asked(places: list[int]) -> list[dict[str, Any]]:
    """Examples of unlike lengths, of which the last token, an answer, is learned."""
    rows = examples([4, 9, 6][: len(places)])
    for row, place in zip(rows, places, strict=True):
        row["labels"] = [-100] * (len(row["input_ids"]) - 1) + [place]
    return rows


HEADS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "frozen": lambda model: model.requires_grad_(False),
    "trained": lambda model: model,
    "capped": lambda model: Capped(model.requires_grad_(False)),
}


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_the_loss_is_that_of_the_right_answer_among_all_answers(family: str, head: str) -> None:
    """It is the textbook's on the answers' logits alone, with a bias or without."""
    model = HEADS[head](tiny_base(family).eval())
    rows = asked([1, 2, 0])
    losses = causal_lm_losses(model, collate(rows), among=AMONG)
    for row, loss, place in zip(rows, losses, [1, 2, 0], strict=True):
        batch = {k: v for k, v in collate([row]).items() if k != "labels"}
        logits = model(**batch).logits[0, -2, AMONG]
        torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor(place)))


class Spelling:
    """A tokenizer of letters, by which "A" is "a"."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - 90 for letter in text.lower()]}


def test_each_answer_is_one_token_of_its_own() -> None:
    """Longer ones, and two that are one, are refused by name."""
    assert answer_tokens(answers=["b", "a"], tokenizer=Spelling()).tolist() == [8, 7]
    with pytest.raises(ConfigurationError, match="'no' is 2 tokens"):
        answer_tokens(answers=["a", "no"], tokenizer=Spelling())
    with pytest.raises(ConfigurationError, match="'a' and 'A' are one token"):
        answer_tokens(answers=["a", "A"], tokenizer=Spelling())


def configured(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {"model": "m", "train_data": "d", "epsilon": 1.0, "steps": 1}
    fields = {"prompt_field": "p", "completion_field": "c", "learn_end": False}
    return TrainingConfig(**values, **fields, expected_batch_size=1, **changes)


def test_held_out_perplexity_is_among_the_answers() -> None:
    """An untrained model finds all alike, so it is their number; without answers, of all words."""
    model, rows = tiny_base("llama").eval(), asked([0, 2, 1])
    found = {}
    for answers in (("a", "b", "c"), None):
        losses_of = losses_for(
            config=configured(answers=answers), model=model, tokenizer=Spelling()
        )
        found[answers] = held_out_perplexity(
            model=model, examples=rows, collate=collate, losses_of=losses_of
        )
    assert found["a", "b", "c"] == pytest.approx(3, rel=0.3)
    plain = held_out_perplexity(model=model, examples=rows, collate=collate)
    assert found[None] == plain > 10


def test_only_the_answers_logits_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen head is asked for its rows of these words, and none of the others."""
    seen: list[Tensor] = []
    real = causal_lm_losses.__globals__["projected_cross_entropy"]

    def watched(states: Tensor, weight: Tensor, *others: Any) -> Tensor:
        seen.append(weight)
        return real(states, weight, *others)

    monkeypatch.setitem(causal_lm_losses.__globals__, "projected_cross_entropy", watched)
    model = tiny_base("llama").eval().requires_grad_(False)
    causal_lm_losses(model, collate(asked([1])), among=AMONG)
    assert torch.equal(seen[0], model.lm_head.weight[AMONG])
