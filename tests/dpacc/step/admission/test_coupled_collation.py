"""Collate functions that couple examples, and those whose draws nobody can key, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
)

from dpacc.errors import PrivacyError
from tests.dpacc.step.admission.coupled import Collate, farthest, token_mean, train
from tests.tiny_models import (
    collate,
    examples,
    save_tiny_llama,
    tiny_model,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of words, as `AutoTokenizer` reads it."""
    folder = tmp_path_factory.mktemp("words")
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "the"]
    save_tiny_llama(folder, words=words)
    return AutoTokenizer.from_pretrained(folder)


def test_texts_that_are_tokenized_in_the_collate_function(tokenizer: Any, tmp_path: Path) -> None:
    """Invented texts differ in length and content, so that a mean over tokens shows."""

    def collate_texts(batch: list[Any]) -> Any:
        rows = tokenizer([each["text"] for each in batch], padding=True, return_tensors="pt")
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        return {**rows, "labels": labels}

    data = [{"text": "alpha bravo charlie"}] * 20
    case: dict[str, Any] = {"losses": token_mean, "collate": collate_texts}
    assert farthest(tiny_model("llama"), data, {"text": "delta echo " * 60}, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)
    train(tiny_model("llama"), data, tmp_path, collate=collate_texts)


def by_length(batch: list[Any]) -> Any:
    return collate(sorted(batch, key=lambda each: len(each["input_ids"])))


def by_label(batch: list[Any]) -> Any:
    return collate(sorted(batch, key=lambda each: each["labels"][0]))


def without_the_last(batch: list[Any]) -> Any:
    return collate(batch[:-1] or batch)


def with_a_memory() -> Collate:
    seen: list[int] = []

    def remembering(batch: list[Any]) -> Any:
        seen.append(len(batch))
        rows = collate(batch)
        return rows | {"attention_mask": rows["attention_mask"] * len(seen)}

    return remembering


@pytest.mark.parametrize(
    ("function", "refusal"),
    [
        (by_length, "put example . into row"),
        (by_label, "put example . into row"),
        (without_the_last, "made 3 rows of 4 examples"),
        (with_a_memory(), "two different batches of the same"),
    ],
)
def test_a_collate_function_keeps_order_and_number(
    function: Collate, refusal: str, tmp_path: Path
) -> None:
    """A sorted batch would give one unit's rows to another."""
    with pytest.raises(PrivacyError, match=refusal):
        train(tiny_model("llama"), examples([5] * 4), tmp_path, collate=function)


def test_masks_that_a_collate_function_draws_are_secret(tokenizer: Any, tmp_path: Path) -> None:
    """It passes the probe, draws other masks each time, and leaves the global generator alone."""
    tokenizer.mask_token = "<unk>"
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    seen: list[torch.Tensor] = []

    def collate_masked(batch: list[Any]) -> Any:
        rows = collator([{"input_ids": each["input_ids"]} for each in batch])
        seen.append(rows["labels"])
        return dict(rows)

    data = [{"input_ids": [4, 5, 6, 7, 8, 9, 10, 11] * 4}] * 4
    drawn = []
    for _ in range(2):
        model = tiny_model("llama")
        before = torch.manual_seed(0).get_state()
        train(model, data, tmp_path, collate=collate_masked)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(seen[-1])
    assert drawn[0].shape == drawn[1].shape
    assert not torch.equal(*drawn)


def test_a_collate_function_with_a_seed_of_its_own_is_refused(
    tokenizer: Any, tmp_path: Path
) -> None:
    """Nobody but it can key what it draws."""
    tokenizer.mask_token = "<unk>"
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=1)
    with pytest.raises(PrivacyError, match="leave out its seed"):
        train(tiny_model("llama"), [{"input_ids": [4, 5, 6]}] * 4, tmp_path, collate=collator)
