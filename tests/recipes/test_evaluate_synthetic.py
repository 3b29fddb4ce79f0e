"""Synthetic records are compared with public ones; what is private stays with its owner."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.recipes.training import (
    RECIPE,
    WORDS,
    as_arguments,
    lines,
    listed,
    refusal,
    settings,
    write_texts,
)
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama

RECIPE_FILE = RECIPE.with_name("evaluate_synthetic.py")


@pytest.fixture(scope="module")
def likeness() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE_FILE)


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments for twelve synthetic texts, of which six are private ones."""
    write_texts(tmp_path / "private.jsonl", count=60)
    write_texts(tmp_path / "held_out.jsonl", count=10, beginning="joy ")
    private = (tmp_path / "private.jsonl").read_text().splitlines()
    new = [json.dumps({"text": f"{word} {word}"}) for word in "abcdef"]
    (tmp_path / "synthetic.jsonl").write_text("\n".join([*private[5:11], *new]))

    def given(**changes: object) -> list[str]:
        shared = {"synthetic": tmp_path / "synthetic.jsonl", "overlap_words": 3}
        return as_arguments(settings(tmp_path, tmp_path / "none") | shared | changes)

    return given


def test_figures_stand_beside_those_of_public_texts(
    likeness: ModuleType, told: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lengths, distinct n-grams and known words, as JSON, without a word on the training data."""
    likeness.main(told(as_json=True))
    found = json.loads(capsys.readouterr().out)
    ours, theirs = found["synthetic"], found["held-out"]
    assert ours.keys() == theirs.keys() >= {"median", "distinct 2-grams"}
    assert 0 < ours["words that half of the held-out texts know"] < 1
    assert theirs["words that half of the held-out texts know"] > 0.8
    assert ours["distinct 1-grams"] > theirs["distinct 1-grams"]
    assert "training" not in json.dumps(found)
    assert "private" not in json.dumps(found)


def test_a_picture_shows_lengths_and_figures(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the format of its name, over no other file, and without a word on the training data."""
    path = tmp_path / "likeness.svg"
    likeness.main(told(picture=path, show_private_overlap="true"))
    assert "NOT private" in capsys.readouterr().out  # the picture stands in nobody's way
    drawn = path.read_text()
    assert "<svg" in drawn
    assert "12 synthetic" in drawn
    assert "10 held-out" in drawn
    assert "private" not in drawn
    monkeypatch.setenv("HOME", str(tmp_path))
    for same in (path, "~/likeness.svg"):
        assert "exists" in refusal(likeness.main, told(picture=same), capsys)
    wrong = told(picture=tmp_path / "likeness.txt")
    assert "figures are .png" in refusal(likeness.main, wrong, capsys)


def test_repetitions_of_training_data_are_shown_to_their_owner_alone(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the terminal, marked; never unasked, never as JSON, and in no file."""
    likeness.main(told())
    assert "training data" not in capsys.readouterr().out
    before = sorted(tmp_path.rglob("*"))
    likeness.main(told(show_private_overlap=True))
    said = " ".join(capsys.readouterr().out.split())
    assert "NOT private, for the owner's eyes" in said
    assert "synthetic 50.00% hold 3 words in a row" in said
    assert sorted(tmp_path.rglob("*")) == before
    both = told(show_private_overlap=True, as_json=True)
    assert "leave one of them out" in refusal(likeness.main, both, capsys)


def test_labels_are_compared_where_they_are_few(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Shares of each, synthetic and public, where prompts are control codes."""
    for name, labels in (("synthetic", "gggb"), ("held_out", "ggbb"), ("private", "b")):
        rows = [{"ask": each, "say": f"{name} {at}"} for at, each in enumerate(labels)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    likeness.main(told(as_json=True, prompt_field="ask", completion_field="say"))
    found = json.loads(capsys.readouterr().out)
    assert (found["synthetic"]["share of g"], found["held-out"]["share of g"]) == (0.75, 0.5)


def test_a_classifier_learns_from_synthetic_and_is_asked_about_real_texts(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside a privately trained one; what training data would teach is its owner's to see."""
    said = {"good": ["joy music", "music joy", "joy joy"], "bad": ["dull", "dull was", "was dull"]}
    for name, more in (("synthetic", "face"), ("held_out", "every"), ("private", "its")):
        rows = [{"ask": k, "say": f"{text} {more}"} for k in said for text in said[k]] * 2
        listed(tmp_path / f"{name}.jsonl", *rows)
    save_tiny_llama(tmp_path / "encoder", words=WORDS)
    listed(tmp_path / "private.json", {"accuracy": 0.75})
    shared: dict[str, object] = {
        "prompt_field": "ask",
        "completion_field": "say",
        "encoder": tmp_path / "encoder",
        "private_classifier": tmp_path / "private.json",
    }
    likeness.main(told(as_json=True, **shared))
    said = capsys.readouterr().out
    found = json.loads(said[said.index("{") :])  # a first import of DeepSpeed may speak before
    name = "accuracy of a classifier trained on them"
    assert found["synthetic"][name] > 0.9
    assert found["a privately trained classifier"] == {name: 0.75}
    assert 0 < found["synthetic"]["MAUVE with half of the held-out texts"] <= 1
    before = sorted(tmp_path.rglob("*"))
    likeness.main(told(show_private_accuracy=True, **shared))
    shown = " ".join(capsys.readouterr().out.split())
    assert "NOT private, for the owner's eyes" in shown
    assert "right by a classifier trained on as many of them" in shown
    assert sorted(tmp_path.rglob("*")) == before
    both = told(show_private_accuracy=True, as_json=True, **shared)
    assert "leave one of them out" in refusal(likeness.main, both, capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"show_private_accuracy": True}, "name a model with --encoder"),
        ({"private_classifier": "private.jsonl"}, "holds no accuracy"),
        ({"held_out_data": "null"}, "name a file with --held_out_data"),
        ({"held_out_data": "private.jsonl"}, "stand in the private training data too"),
        ({"synthetic": "few.jsonl"}, "1 synthetic records are too few"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Nothing to compare with, private data to compare with, or next to nothing to compare."""
    monkeypatch.chdir(tmp_path)
    arguments = told(**changes)
    (tmp_path / "few.jsonl").write_text('{"text": "a b"}')
    assert words in " ".join(refusal(likeness.main, arguments, capsys).split())


def test_the_pages_commands_are_read(
    likeness: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command of docs/synthetic.md runs, on tiny files of our own."""
    page = (RECIPE.parents[1] / "docs/synthetic.md").read_text()
    save_tiny_llama(tmp_path / "encoder", words=WORDS)
    given = told()
    commands = re.findall(r"^python recipes/evaluate_synthetic.py (.*)$", page, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        if "labelled" in command:
            for path in tmp_path.glob("*.jsonl"):
                listed(
                    path, *({"label": "ab"[at % 2], **row} for at, row in enumerate(lines(path)))
                )
        arguments = [
            str(RECIPE.parents[1] / each) if each.endswith(".yaml") else each
            for each in shlex.split(command)
        ]
        mine = [f"--encoder={tmp_path / 'encoder'}"] if "--encoder" in command else []
        likeness.main([*arguments, *given, *mine])
        shown = capsys.readouterr().out
        assert "distinct 3-grams" in shown
        assert ("MAUVE" in shown) == ("a classifier" in shown) == bool(mine)
