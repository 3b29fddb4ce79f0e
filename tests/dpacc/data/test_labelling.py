"""Classes of texts and words become numbers; nothing of a record is quoted when they cannot."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpacc.data.labelling import class_complaint, tag_complaint, tokenize_classes, tokenize_tags
from dpacc.data.supervision import IGNORED
from tests.tiny_models import save_tiny_llama

LABELS = ("other", "person", "place")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder, words=["Anna", "rang", "Basel", "Ba", "sel"])
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def test_a_class_is_a_name_or_its_place(tokenizer: PreTrainedTokenizerBase) -> None:
    """Both spellings of a class are the same number; the text keeps its first tokens."""
    records = [{"text": "Anna rang Basel", "label": "place"}, {"text": "Basel", "label": 2}]
    records.append({"text": "Basel", "label": "2"})  # as a CSV file says it
    found = tokenize_classes(
        records=records,
        tokenizer=tokenizer,
        max_length=2,
        text_field="text",
        label_field="label",
        labels=LABELS,
    )
    assert [each["labels"] for each in found] == [2, 2, 2]
    assert found[0]["input_ids"] == tokenizer("Anna rang Basel")["input_ids"][:2]


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_is_still_an_example(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """It keeps its place among N, with a token that a model can read."""
    (found,) = tokenize_classes(
        records=[{"text": text, "label": 0}],
        tokenizer=tokenizer,
        max_length=8,
        text_field="text",
        label_field="label",
        labels=LABELS,
    )
    assert len(found["input_ids"]) >= 1


def test_a_words_class_stands_at_its_first_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Every word teaches once, however many tokens it has, and what is cut off teaches nothing."""
    records = [{"words": ["Anna", "rang", "Basel"], "tags": ["person", 0, "place"]}]
    options = {"tokenizer": tokenizer, "words_field": "words", "label_field": "tags"}
    (whole,) = tokenize_tags(records=records, max_length=64, labels=LABELS, **options)  # type: ignore[arg-type]
    assert len(whole["input_ids"]) == len(whole["labels"])
    assert [label for label in whole["labels"] if label != IGNORED] == [1, 0, 2]
    (cut,) = tokenize_tags(records=records, max_length=1, labels=LABELS, **options)  # type: ignore[arg-type]
    assert len(cut["input_ids"]) == len(cut["labels"]) == 1
    (empty,) = tokenize_tags(
        records=[{"words": [], "tags": []}],
        max_length=8,
        labels=LABELS,
        **options,  # type: ignore[arg-type]
    )
    assert set(empty["labels"]) == {IGNORED}


@pytest.mark.parametrize(
    ("label", "wrong"),
    [("place", False), (0, False), ("secret", True), (3, True), (-1, True), (True, True)],
)
def test_an_unknown_class_is_refused_unquoted(label: object, wrong: bool) -> None:
    """The complaint names the field and the classes that there are, never the record's word."""
    complaint = class_complaint({"label": label}, label_field="label", labels=LABELS)
    assert (complaint is not None) == wrong
    if complaint:
        assert "other, person, place" in complaint
        assert "secret" not in complaint


@pytest.mark.parametrize(
    ("words", "tags", "complaint"),
    [
        (["Anna"], ["person"], None),
        (["Anna"], ["person", "other"], "names 2 classes for 1 words"),
        ([7], ["other"], "must be a list of texts"),
        (["Anna"], ["secret"], "each entry of field 'tags' must be one of"),
    ],
)
def test_words_without_classes_are_refused_unquoted(
    words: list[object], tags: list[object], complaint: str | None
) -> None:
    """One class for each word, all of them known; no word is quoted."""
    found = tag_complaint(
        {"words": words, "tags": tags}, words_field="words", label_field="tags", labels=LABELS
    )
    assert (found is None) == (complaint is None)
    if found and complaint:
        assert complaint in found
        assert not {"Anna", "secret"} & set(found.replace("'", " ").split())
