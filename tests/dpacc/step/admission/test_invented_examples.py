"""Invented examples look like the data, and differ wherever examples can differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset, default_collate
from transformers import default_data_collator

from dpacc.data.supervision import IGNORED
from dpacc.errors import PrivacyError
from dpacc.step.admission.invented_examples import (
    examples_for_probe,
    lengths_of_change,
    made_up_examples,
)
from tests.tiny_models import VOCABULARY, collate, tiny_base

REAL = {
    "input_ids": [5, 6, 7],
    "labels": torch.tensor([5, 6, 7]),
    "attention_mask": np.array([1, 1, 1]),
    "class": 2,
    "weight": 0.25,
    "text": "secret",
    "note": None,
    "flag": True,
    "score": torch.tensor(0.5),
    "several": [1.0, 0.0, 1.0, 0.0],
    "picture": torch.zeros(3, 4, 4, dtype=torch.float16),
    "bytes": np.zeros((4, 4, 3), dtype=np.uint8),
    "boxes": [[1, 2, 3, 4]] * 3,
    "words": ["not", "to", "see"],
}


def test_made_up_examples_have_the_fields_and_types_of_real_ones() -> None:
    """Lists stay lists, arrays arrays, tensors tensors; shapes and dtypes are kept."""
    for example in made_up_examples(model=tiny_base("llama"), like=REAL):
        tokens = len(example["input_ids"])
        assert example.keys() == REAL.keys()
        assert [type(value) for value in example.values()] == [type(v) for v in REAL.values()]
        assert max(example["input_ids"]) < VOCABULARY
        assert len(example["labels"]) == len(example["boxes"]) == len(example["words"]) == tokens
        assert example["attention_mask"].tolist() == [1] * tokens
        assert example["note"] is None
        assert "secret" not in example["text"]
        assert "see" not in example["words"]
        assert example["score"].shape == ()
        assert len(example["several"]) == 4
        assert (example["picture"].shape, example["picture"].dtype) == ((3, 4, 4), torch.float16)
        assert (example["bytes"].shape, example["bytes"].dtype) == ((4, 4, 3), np.uint8)


def test_they_differ_wherever_examples_can() -> None:
    """In length, in the number and share of learned labels, in every number and in every text."""
    made = made_up_examples(model=tiny_base("llama"), like=REAL)
    learned = [int((example["labels"] != IGNORED).sum()) for example in made]
    shares = [count / len(example["labels"]) for count, example in zip(learned, made, strict=True)]
    assert len(set(learned)) == len(set(shares)) == 4
    for name in ("weight", "score", "text"):
        assert len({str(example[name]) for example in made}) == 4, name
    assert len({len(example["text"].split()) for example in made}) == 4
    for name in ("class", "flag"):  # of two kinds, and the two that change places differ
        assert made[2][name] != made[3][name]
    assert len(set(made[3]["input_ids"])) == 1  # easy to predict
    assert len(set(made[2]["input_ids"])) > 3


def test_made_up_examples_say_nothing_of_real_ones() -> None:
    """Two datasets with the same fields get the same made-up examples."""
    model = tiny_base("llama")
    first = made_up_examples(model=model, like={"input_ids": [5, 6], "labels": [5, 6]})
    second = made_up_examples(model=model, like={"input_ids": [9] * 50, "labels": []})
    assert first == second


def test_labels_of_a_classifier_are_classes() -> None:
    """Where the model predicts no words, a label of a token is 0, 1 or not learned."""
    like = {"input_ids": [5, 6], "labels": [1, 0]}
    made = made_up_examples(model=tiny_base("bert"), like=like)
    assert {label for example in made for label in example["labels"]} == {IGNORED, 0, 1}


def test_rows_of_one_length_are_padded_within() -> None:
    """Where collating only stacks, rows are as long as the data's and hold padding of their own."""
    like = {"input_ids": [5] * 20, "attention_mask": [1] * 20, "labels": [5] * 20}
    made, _, longer = examples_for_probe(
        model=tiny_base("llama"), like=like, collate=default_data_collator
    )
    assert {len(value) for example in made for value in example.values()} == {20}
    assert len({sum(example["attention_mask"]) for example in made}) == 4
    for example in made:
        padding = np.array(example["attention_mask"]) == 0
        assert set(np.array(example["labels"])[padding]) <= {IGNORED}
    assert longer == []


@pytest.mark.parametrize(
    "network", [nn.Linear(4, 2), nn.Sequential(nn.Flatten(), nn.Linear(12, 1))]
)
def test_tuples_and_plain_modules_have_made_up_examples(network: nn.Module) -> None:
    """A TensorDataset's tuples become tuples of tensors of the same shapes and types."""
    data = TensorDataset(torch.randn(5, 3, 4), torch.tensor([0, 1, 2, 1, 0]))
    made, _, _ = examples_for_probe(model=network, like=data[0], collate=default_collate)
    assert [(len(each), each[0].shape, each[1].shape) for each in made] == [(2, (3, 4), ())] * 4
    assert {each[1].dtype for each in made} == {torch.int64}
    assert len({float(each[0].mean()) for each in made}) == 4


def test_pictures_are_made_up_too() -> None:
    """A picture becomes one of the same size and mode."""
    like = {"image": Image.new("L", (5, 7)), "label": 1}
    made = made_up_examples(model=nn.Linear(1, 1), like=like)
    assert {(each["image"].size, each["image"].mode) for each in made} == {((5, 7), "L")}


@pytest.mark.parametrize("like", ["a string", {"odd": object()}, {"chat": [{"role": "user"}]}])
def test_what_cannot_be_made_up_is_refused_with_the_remedy(like: Any) -> None:
    """The caller is asked for probe_examples."""
    with pytest.raises(PrivacyError, match="pass probe_examples"):
        made_up_examples(model=tiny_base("llama"), like=like)


def choosy(examples: list[Any]) -> Any:
    """A collator that takes real examples alone."""
    raise KeyError(examples[0]["text"])


def only_several(examples: list[Any]) -> Any:
    """A collator that takes several examples, and none alone."""
    first, *others = examples
    if not others:
        raise KeyError(first["text"])
    return examples


@pytest.mark.parametrize("refuses", [choosy, only_several])
def test_a_collator_that_refuses_them_is_named(refuses: Callable[[list[Any]], Any]) -> None:
    """Its error is told, with the remedy."""
    with pytest.raises(PrivacyError, match=r"refuses invented examples \(KeyError.*probe_examples"):
        examples_for_probe(model=tiny_base("llama"), like={"text": "x"}, collate=refuses)


def test_lengths_at_which_a_configuration_changes_are_tried() -> None:
    """One token more than each of them, as far as the model has positions."""
    model = tiny_base("llama")
    assert lengths_of_change(model) == []
    model.config.sliding_window, model.config.original_max_position_embeddings = 20, 30
    assert lengths_of_change(model) == [21, 31]
    model.config.max_position_embeddings = 25
    assert lengths_of_change(model) == [21]
    like = {"input_ids": [5], "labels": [5]}
    _, _, longer = examples_for_probe(model=model, like=like, collate=collate)
    assert [len(example["input_ids"]) for example in longer] == [21]


@pytest.mark.parametrize("collator", [collate, default_data_collator])
def test_the_twin_has_as_much_to_learn_and_says_something_else(collator: Any) -> None:
    """Beside it a head computes as many rows as beside the third, of other words."""
    like = {"input_ids": [5] * 20, "attention_mask": [1] * 20, "labels": [5] * 20, "weight": 1.0}
    made, twin, _ = examples_for_probe(model=tiny_base("llama"), like=like, collate=collator)
    hard = made[2]
    for name in ("input_ids", "attention_mask", "labels"):
        assert len(twin[name]) == len(hard[name])
    learned = [np.array(each["labels"]) != IGNORED for each in (hard, twin)]
    assert np.array_equal(*learned)
    assert list(hard["input_ids"]) != list(twin["input_ids"])
    assert hard["weight"] > 2 * twin["weight"]


def test_the_twin_of_a_text_has_other_words_in_as_many_places() -> None:
    """Words of like length, so that a tokenizer cuts it into about as many."""
    made, twin, _ = examples_for_probe(model=tiny_base("llama"), like={"text": "x"}, collate=list)
    hard, other = made[2]["text"].split(" "), twin["text"].split(" ")
    assert hard != other
    assert [len(word) for word in hard] == [len(word) for word in other]
