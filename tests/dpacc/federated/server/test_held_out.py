"""What the server measures: each kind of text alone, and never a share that guessing would find."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.federated.server.held_out import HeldOut, balanced_accuracy, standard_error
from dpacc.recipe.models import load_base
from dpacc.recipe.pretrained import load_tokenizer
from tests.dpacc.federated.federations import classifier_folder, opinions

TASK = {"task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16}


def test_guessing_finds_half() -> None:
    """However rare a class is, always saying the other finds half."""
    assert balanced_accuracy([1] * 10, [1] * 9 + [0]) == 0.5
    assert balanced_accuracy([0, 1, 1, 0], [0, 0, 1, 1]) == 0.5
    assert balanced_accuracy([0, 1], [0, 1]) == 1.0


def test_each_file_is_a_kind(tmp_path: Path) -> None:
    """A model that always says good finds half of either kind, and all of what is all good."""
    for seed, kind in enumerate(("films", "books")):
        opinions(tmp_path / f"held_out_{kind}.jsonl", count=20, seed=seed)
    opinions(tmp_path / "films.jsonl", count=4, seed=5)
    (tmp_path / "held_out_praise.jsonl").write_text('{"text": "fine film", "label": "good"}')
    base = load_base(
        model=str(classifier_folder(tmp_path)),
        task="sequence-classification",
        labels=TASK["labels"],
    )
    with torch.no_grad():
        base.model.classifier.weight.zero_()
        base.model.classifier.bias.copy_(torch.tensor([-1.0, 1.0]))
    found = HeldOut(folder=tmp_path, tokenizer=base.tokenizer, task=TASK)(base.model)
    assert found == {"books": 0.5, "films": 0.5, "praise": 1.0}


def test_nothing_to_measure_on_is_refused(tmp_path: Path) -> None:
    """The error names the folder and what would have to be in it."""
    opinions(tmp_path / "films.jsonl", count=4, seed=5)
    base = load_base(
        model=str(classifier_folder(tmp_path)),
        task="sequence-classification",
        labels=TASK["labels"],
    )
    with pytest.raises(ConfigurationError, match=r"held_out_<kind>\.jsonl"):
        HeldOut(folder=tmp_path, tokenizer=base.tokenizer, task=TASK)


def test_no_client_is_measured_on_its_own_texts(tmp_path: Path) -> None:
    """Where all files are in one place they are compared, by the tokens that the model reads."""
    held_out = opinions(tmp_path / "held_out_films.jsonl", count=6, seed=0)
    own = tmp_path / "films.jsonl"
    own.write_text('{"text": "warm long loud film", "label": "good"}\n')
    base = load_base(
        model=str(classifier_folder(tmp_path)),
        task="sequence-classification",
        labels=TASK["labels"],
    )
    measure = HeldOut(folder=tmp_path, tokenizer=base.tokenizer, task=TASK)
    measure.require_apart({"films": own})
    own.write_text(own.read_text() + held_out.read_text().splitlines()[2])
    with pytest.raises(ConfigurationError, match=r"held_out_films\.jsonl, with films's"):
        measure.require_apart({"films": own})


def test_a_figures_error_is_that_of_the_classes_it_is_of(tmp_path: Path) -> None:
    """√(p(1 − p)·Σ 1/n)/C, by the labels in the file; a simulation of guesses finds the same."""
    draw = random.Random(0)
    true = [0] * 30 + [1] * 90
    found = [
        balanced_accuracy([each if draw.random() < 0.7 else 1 - each for each in true], true)
        for _ in range(2000)
    ]
    assert standard_error(0.7, true) == pytest.approx(statistics.stdev(found), rel=0.06)
    opinions(tmp_path / "held_out_films.jsonl", count=40, seed=1)
    model = classifier_folder(tmp_path)
    held_out = HeldOut(folder=tmp_path, tokenizer=load_tokenizer(model=str(model)), task=TASK)
    said = [json.loads(line)["label"] for line in (tmp_path / "held_out_films.jsonl").open()]
    expected = standard_error(0.8, [int(each == "good") for each in said])
    assert held_out.standard_errors({"films": 0.8}) == {"films": expected}
