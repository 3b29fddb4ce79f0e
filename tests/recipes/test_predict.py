"""The recipe that asks a finished adapter: a line of JSON for each record, by its folder alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpacc.cli import terminal
from tests.recipes.training import Train, listed, refusal
from tests.scripts import load_script

RECIPE = Path(__file__).parents[2] / "recipes/predict.py"

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def prediction() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


@pytest.fixture
def ask(
    prediction: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ask:
    """What the recipe answers to records on standard input, told the run's folder alone."""

    def run(folder: Path, *records: object, **changes: object) -> list[dict[str, Any]]:
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        capsys.readouterr()
        with terminal.one_line_errors():
            words = [f"--{name}={value}" for name, value in changes.items()]
            prediction.main(["--adapter", str(folder), *words])
        out, err = capsys.readouterr()
        assert "computed from each record without noise" in err
        return [json.loads(line) for line in out.splitlines()]

    return run


def test_a_text_is_gone_on_with_by_the_adapter(
    ask: Ask, finished: Path, material: Path, tmp_path: Path
) -> None:
    """The likeliest tokens that base and adapter give, in batches as alone, from a file as well."""
    records = [{"text": "the film was"}, {"text": "but its music and every"}, {"text": "joy"}]
    found = ask(finished, *records, new_tokens=6)
    assert ask(finished, *records, new_tokens=6, batch_size=1) == found
    path = listed(tmp_path / "asked.jsonl", *records)
    assert ask(finished, new_tokens=6, data=path) == found
    tokenizer = AutoTokenizer.from_pretrained(finished)
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    model = PeftModel.from_pretrained(base, finished).eval()
    end = tokenizer.eos_token_id
    for record, answer in zip(records, found, strict=True):
        ids = tokenizer(record["text"], return_tensors="pt")["input_ids"]
        read = ids.shape[1]
        while ids.shape[1] < read + 6 and end not in ids[0, read:]:
            logits = model(input_ids=ids).logits[0, -1]
            never = {*tokenizer.all_special_ids, *range(len(tokenizer), len(logits))} - {end}
            logits[[*never]] = -torch.inf
            ids = torch.cat([ids, logits.argmax().reshape(1, 1)], dim=1)
        assert answer["ended"] == (end in ids[0, read:])
        assert answer["text"] == tokenizer.decode(ids[0, read:], skip_special_tokens=True)
    assert any(answer["text"] for answer in found)


def test_a_classifiers_labels_have_probabilities(ask: Ask, train: Train, tmp_path: Path) -> None:
    """What was learned by heart is said of records that have no label."""
    moods = ({"text": "joy film" if i % 2 else "dull", "label": i % 2} for i in range(60))
    folder = by_heart(train, listed(tmp_path / "moods.jsonl", *moods), "sequence-classification")
    good, bad = ask(folder, {"text": "joy film", "place": 7}, {"text": "dull"})
    assert (good["label"], bad["label"]) == ("good", "bad")
    for answer in (good, bad):
        assert answer["probabilities"].keys() == {"bad", "good"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["probabilities"][answer["label"]] > 0.5


def test_each_word_has_a_label_unless_it_was_cut_off(
    ask: Ask, train: Train, tmp_path: Path
) -> None:
    """In their order; what lies beyond max_length was never read."""
    texts = [["the", "film", "was"], ["film", "the"], ["film"] * 8] * 20
    records = [
        {"words": words, "label": ["good" if word == "film" else "bad" for word in words]}
        for words in texts
    ]
    folder = by_heart(train, listed(tmp_path / "tags.jsonl", *records), "token-classification")
    short, long = ask(folder, {"words": ["film", "the"]}, {"words": ["film"] * 12}, max_length=10)
    assert short["labels"] == ["good", "bad"]
    read = [label for label in long["labels"] if label is not None]
    assert read == ["good"] * len(read)
    assert 8 <= len(read) <= 10
    assert long["labels"] == read + [None] * (12 - len(read))
    assert [each is None for each in long["probabilities"]] == [
        each is None for each in long["labels"]
    ]


def by_heart(train: Train, records: Path, task: str) -> Path:
    data = {"train_data": records, "held_out_data": "null"}
    told = data | {"epsilon": 1e4, "steps": 20, "expected_batch_size": 30, "learning_rate": 0.03}
    return train(**told, task=task, labels="bad,good") / "tiny"


def test_an_answer_is_one_of_those_that_were_learned(
    ask: Ask, train: Train, tmp_path: Path
) -> None:
    """With how likely each is among them, from the prompt alone; the bare base says the other."""
    records = [{"ask": "film", "say": "dull" if i else "joy"} for i in range(60)]
    told = {"prompt_field": "ask", "completion_field": "say", "answers": "joy,dull"}
    told |= {"learn_end": False, "held_out_data": "null", "epsilon": 1e4, "learning_rate": 0.03}
    told |= {"steps": 8}
    folder = train(train_data=listed(tmp_path / "said.jsonl", *records), **told) / "tiny"
    (found,) = ask(folder, {"ask": "film"})
    assert found["answer"] == "dull"
    assert sum(found["probabilities"].values()) == pytest.approx(1)


def test_what_cannot_be_answered_is_one_line(
    prediction: ModuleType,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, what to do, and nothing of a record."""

    def refused(*words: str) -> str:
        return refusal(prediction.main, ["--adapter", str(finished), *words], capsys)

    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "joy"}\n{"secret": "Ann"}\n'))
    said = refused()
    assert "standard input" in said
    assert "no field 'text'" in said
    assert "Ann" not in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert "name a file with --data" in refused()
    path = listed(tmp_path / "asked.jsonl", {"text": "joy"})
    assert "quantization=nf4 is not what" in refused("--data", str(path), "--quantization=nf4")
    assert "new_tokens=512 must be below" in refused("--data", str(path), "--new_tokens=512")
