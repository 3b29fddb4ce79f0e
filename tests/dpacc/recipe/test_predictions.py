"""Predictions are the likeliest classes and answers, counted exactly."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import load_base
from dpacc.recipe.predictions import (
    answer_probabilities,
    continue_texts,
    predict_classes,
    quality_of,
)
from tests.tiny_models import save_tiny_llama

collate = partial(pad_examples, pad_token_id=0)
WORDS = ["good", "bad", "film", "very", "so"]


class Remainder(torch.nn.Module):
    """Finds class t mod 3 at a token t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids % 3, 3).float())


@pytest.mark.parametrize("max_tokens", [4, 100])
def test_every_labelled_token_is_predicted_once(max_tokens: int) -> None:
    """Whatever the micro-batches, guesses and truths stand in the same places; −100 is left out."""
    examples = [
        {"input_ids": [0, 1, 2, 4], "labels": [0, 1, 1, -100]},
        {"input_ids": [5], "labels": [0]},
    ]
    predicted, true = predict_classes(
        model=Remainder(), examples=examples, collate=collate, max_tokens=max_tokens
    )
    assert sorted(zip(predicted, true, strict=True)) == [(0, 0), (1, 1), (2, 0), (2, 1)]


def test_f1_weighs_precision_and_recall() -> None:
    """F1 = 2pr/(p + r) for each class; a class that nobody named and nobody had has 0."""
    found = quality_of(predicted=[0, 0, 0, 1], true=[0, 0, 1, 1], labels=["a", "b", "c"])
    precision, recall = 2 / 3, 1.0
    assert found.f1["a"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.f1["b"] == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert found.f1["c"] == 0
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 3)
    assert found.accuracy == 0.75
    with pytest.raises(ConfigurationError, match="no held-out example"):
        quality_of(predicted=[], true=[], labels=["a", "b"])


def test_the_likeliest_answer_has_the_largest_probability(tmp_path: Path) -> None:
    """Answers of different lengths compare by their whole log probability, one prompt at a time."""
    save_tiny_llama(tmp_path, words=WORDS)
    base = load_base(model=str(tmp_path), dtype="float32")
    prompts, answers = ["very", "film so", "bad bad film"], [" good", " bad film", " so very good"]

    def log_probability(prompt: str, answer: str) -> float:
        read = base.tokenizer(prompt)["input_ids"]
        said = base.tokenizer(answer, add_special_tokens=False)["input_ids"]
        logits = base.model(torch.tensor([read + said])).logits[0].log_softmax(dim=-1)
        return float(sum(logits[len(read) + i - 1, token] for i, token in enumerate(said)))

    scores = [[log_probability(prompt, answer) for answer in answers] for prompt in prompts]
    found = answer_probabilities(
        model=base.model,
        tokenizer=base.tokenizer,
        prompts=prompts,
        answers=answers,
        collate=partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id),
    )
    torch.testing.assert_close(found.float(), torch.tensor(scores).softmax(dim=1))


def test_samples_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """A sample can be shown again, and drawing it leaves the global generator where it was."""
    save_tiny_llama(tmp_path, words=WORDS)
    base = load_base(model=str(tmp_path), dtype="float32")
    state = torch.random.get_rng_state()
    first, again, other = (
        continue_texts(
            model=base.model, tokenizer=base.tokenizer, prompts=["very"], tokens=12, seed=seed
        )
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(state, torch.random.get_rng_state())
