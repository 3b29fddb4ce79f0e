"""Preference pairs as tokens: one example of two sequences, of which the answers are learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from dpacc.data.overlap import shared_examples
from dpacc.data.pairs import preference_complaint, tokenize_pairs
from dpacc.data.sequences import as_rows, joined, padded_tokens, parted, sequences_each
from dpacc.errors import ConfigurationError
from dpacc.recipe.examples import pad_examples
from tests.tiny_models import save_tiny_llama

WORDS = ["the", "film", "was", "good", "bad", "very", "user", "assistant"]
CHAT = (
    "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' </s> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
RECORDS = [
    {"prompt": "the film was", "chosen": " very good", "rejected": " bad"},
    {"prompt": "the film", "chosen": " was bad", "rejected": " was very very very good"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("base")
    save_tiny_llama(folder, words=WORDS)
    return AutoTokenizer.from_pretrained(folder)


def test_a_pair_is_its_two_answers_after_one_prompt(tokenizer: Any) -> None:
    """The chosen one first; the prompt is read in both, and each answer learned with its end."""
    first, second = tokenize_pairs(records=RECORDS, tokenizer=tokenizer, max_length=20)
    read = [[tokenizer.decode(part["input_ids"]) for part in parted(e)] for e in (first, second)]
    assert read[0] == ["the film was very good </s>", "the film was bad </s>"]
    learned = [[i for i in part["labels"] if i >= 0] for part in parted(first)]
    assert [tokenizer.decode(ids) for ids in learned] == ["very good </s>", "bad </s>"]
    assert first["sequence_ids"] == [0] * 6 + [1] * 5
    assert [padded_tokens(each) for each in (first, second)] == [12, 16]


def test_chats_are_pairs_too(tokenizer: Any) -> None:
    """Lists of messages, joined by the model's template; only the answer's words are learned."""
    chatty = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    chatty.chat_template = CHAT
    record = {
        "prompt": [{"role": "user", "content": "the film"}],
        "chosen": [{"role": "assistant", "content": "was good"}],
        "rejected": [{"role": "assistant", "content": "was very bad"}],
    }
    (pair,) = tokenize_pairs(records=[record], tokenizer=chatty, max_length=20)
    learned = [[i for i in part["labels"] if i >= 0] for part in parted(pair)]
    assert [chatty.decode(ids) for ids in learned] == ["was good </s>", "was very bad </s>"]


def test_a_batch_counts_pairs_and_a_model_reads_rows(tokenizer: Any) -> None:
    """[pairs, 2, tokens] beside numbers [pairs]; rows 2i and 2i + 1 are pair i's."""
    examples = tokenize_pairs(records=RECORDS, tokenizer=tokenizer, max_length=20)
    collate = partial(pad_examples, pad_token_id=0, pad_to_multiple_of=4)
    batch = collate([{**each, "reference_chosen": 1.5} for each in examples])
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (2, 2, 8),
        "labels": (2, 2, 8),
        "attention_mask": (2, 2, 8),
        "reference_chosen": (2,),
    }
    assert sequences_each(batch) == 2
    rows = as_rows(batch)
    assert rows["input_ids"].shape == (4, 8)
    assert rows["reference_chosen"].shape == (2,)
    for at, part in enumerate(part for example in examples for part in parted(example)):
        width = len(part["input_ids"])
        assert rows["input_ids"][at, :width].tolist() == part["input_ids"]
        assert rows["labels"][at].tolist() == part["labels"] + [-100] * (8 - width)
        assert rows["attention_mask"][at].sum() == width
    single = pad_examples([{"input_ids": [5, 6], "labels": [5, 6]}], pad_token_id=0)
    assert sequences_each(single) == 1
    assert all(as_rows(single)[name] is value for name, value in single.items())


def test_a_pair_that_is_cut_off_stays_a_pair(tokenizer: Any) -> None:
    """How many pairs there are must not depend on what they say, nor their order."""
    records = [{"prompt": "the film was", "chosen": "", "rejected": " bad"}, *RECORDS]
    pairs = tokenize_pairs(records=records, tokenizer=tokenizer, max_length=2, learn_end=False)
    assert [max(map(len, [p["input_ids"] for p in parted(pair)])) for pair in pairs] == [2, 2, 2]
    assert all(len(parted(pair)) == 2 for pair in pairs)
    assert not any(label >= 0 for label in parted(pairs[0])[0]["labels"])


def test_pairs_of_unlike_fields_are_refused() -> None:
    """Text and messages in one record, and examples of one and of two sequences in one batch."""
    mixed = {"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]}
    assert "'prompt' and 'rejected'" in str(preference_complaint(mixed, prompt_field="prompt"))
    one, two = ({"input_ids": [5], "labels": [5]} for _ in range(2))
    with pytest.raises(ConfigurationError, match="2 sequences and another has not"):
        pad_examples([joined([one, two]), joined([one])], pad_token_id=0)


def test_a_private_pair_is_found_among_held_out_ones(tokenizer: Any) -> None:
    """Whatever its reference is; a pair with one other answer is another one."""
    examples = tokenize_pairs(records=RECORDS, tokenizer=tokenizer, max_length=20)
    other = {**RECORDS[0], "rejected": " very bad"}
    held_out = tokenize_pairs(records=[RECORDS[1], other], tokenizer=tokenizer, max_length=20)
    assert shared_examples(private=examples, others=held_out) == 1
