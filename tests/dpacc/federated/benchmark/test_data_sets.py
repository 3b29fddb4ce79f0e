"""Data sets by name or file, and what they say of their records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.data_sets import load_data_set
from dpacc.federated.benchmark.settings import BenchmarkConfig


def config(**changes: Any) -> BenchmarkConfig:
    given: dict[str, Any] = {"models": ("m",), "epsilons": (1.0,), "clients": (2,)}
    return BenchmarkConfig(**{**given, "data_sets": ("sentences",), **changes})


def written(path: Path, count: int, **fields: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"{path.stem} {n}", **fields}) for n in range(count)]
    path.write_text("\n".join(lines))


def test_sentences_are_all_four_kinds_and_say_which(tmp_path: Path) -> None:
    """A name such as news is one kind; what is held out of others is not measured on."""
    for kind in ("movies", "news", "products", "tweets"):
        written(tmp_path / f"sentences/{kind}-east.jsonl", 3, sentiment="positive", document="1")
        written(tmp_path / f"sentences/held_out_{kind}.jsonl", 2, sentiment="negative")
    own = config(data_folder=str(tmp_path))
    every, news = (load_data_set(name, config=own) for name in ("sentences", "news"))
    assert (len(every.train), len(every.held_out)) == (12, 8)
    assert {each["kind"] for each in every.train} == {"movies", "news", "products", "tweets"}
    assert {each["kind"] for each in (*news.train, *news.held_out)} == {"news"}
    assert every.digest != news.digest
    assert replace(news, kind_field=None).digest != news.digest
    assert replace(news, labels=("positive", "negative")).digest != news.digest


def test_clinical_notes_are_what_is_not_held_out_of_each_hospital(tmp_path: Path) -> None:
    """Words with a class each, of patients; hospitals whose names begin alike with h as well."""
    told = {"words": ["a"], "label": ["O"], "patient": "p", "kind": "progress"}
    for name in ("hematology-north", "cardiology-north"):
        written(tmp_path / f"hospitals/{name}.jsonl", 3, **told)
        written(tmp_path / f"hospitals/held_out_{name}.jsonl", 2, **told)
    notes = load_data_set("clinical", config=config(data_folder=str(tmp_path)))
    assert (len(notes.train), len(notes.held_out)) == (6, 4)
    assert notes.task(max_length=8)["task"] == "token-classification"


def test_fewer_records_are_the_same_ones_each_time(tmp_path: Path) -> None:
    """By the public seed; another seed takes others."""
    written(tmp_path / "mine.jsonl", 50)
    written(tmp_path / "held.jsonl", 9)
    own = {"held_out": str(tmp_path / "held.jsonl"), "examples": 7}
    name = str(tmp_path / "mine.jsonl")
    first, again, other = (
        load_data_set(name, config=config(data_sets=(name,), seed=seed, **own))
        for seed in (0, 0, 1)
    )
    assert len(first.train) == 7
    assert first == again
    assert first.digest != other.digest
    assert first.task(max_length=8)["task"] == "causal-lm"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sentence", "is unknown: reviews"),
        ("shakespeare", "fetch_shakespeare.py"),
        (
            "clinical",
            r"fetch_clinical.py`, then `python recipes/healthcare.py --config",
        ),
        ("nowhere.jsonl", "needs held_out"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, name: str, words: str) -> None:
    """With the recipes that fetch and make it, in their order."""
    with pytest.raises(ConfigurationError, match=words):
        load_data_set(name, config=config(data_folder=str(tmp_path)))
