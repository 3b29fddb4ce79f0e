"""The evaluation recipe: an adapter or its bare base, measured on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from dpacc.cli import terminal
from tests.recipes.training import Train, as_arguments, settings
from tests.scripts import load_script

RECIPE = Path(__file__).parents[2] / "recipes/evaluate.py"


@pytest.fixture(scope="module")
def evaluation() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


def measured(
    evaluation: ModuleType,
    capsys: pytest.CaptureFixture[str],
    values: dict[str, object],
) -> dict[str, object]:
    capsys.readouterr()
    with terminal.one_line_errors():
        evaluation.main(as_arguments(values | {"as_json": True}))
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def learning_all_of(path: Path) -> dict[str, object]:
    """Settings by which a tiny classifier learns what is easy, and is asked the same."""
    data = {"train_data": path, "held_out_data": path, "allow_held_out_overlap": True}
    return data | {"epsilon": 1e4, "steps": 8, "expected_batch_size": 30, "learning_rate": 0.03}


def test_an_adapter_is_measured_beside_its_base(
    evaluation: ModuleType,
    train: Train,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both perplexities are those on the run's card, and samples go on from beginnings."""
    folder = train(learning_rate=0.1) / "tiny"
    values = settings(material, tmp_path) | {"samples": 2, "sample_tokens": 4}
    base = measured(evaluation, capsys, values)
    adapted = measured(evaluation, capsys, values | {"adapter": folder})
    card = (folder / "README.md").read_text()
    assert f"{adapted['perplexity']:.1f}" in card
    assert f"{base['perplexity']:.1f}" in card
    assert adapted["perplexity"] != base["perplexity"]
    assert isinstance(adapted["samples"], list)
    assert len(adapted["samples"]) == 2


def test_answers_and_classes_get_accuracy_and_f1(
    evaluation: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A few different completions are answers; a classifier's labels are classes."""
    records = [
        {"text": "film", "ask": "film", "say": " joy" if i % 2 else " dull"} for i in range(9)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    values = settings(material, tmp_path) | {"held_out_data": path, "samples": 0}
    asked = {"prompt_field": "ask", "completion_field": "say", "held_out_examples": 8}
    found = measured(evaluation, capsys, values | asked)
    assert "samples" not in found
    assert found["held-out examples"] == 8
    assert round(float(str(found["accuracy"])) * 8, 9).is_integer()
    assert {"F1 of dull", "F1 of joy", "macro F1"} < set(found)
    classes = {"task": "sequence-classification", "label_field": "say", "labels": " joy, dull"}
    path.write_text("".join(json.dumps(each | {"say": 0}) + "\n" for each in records))
    found = measured(evaluation, capsys, values | classes)
    assert {"accuracy", "macro F1"} < set(found)
    assert "perplexity" not in found


def test_a_sample_of_answers_without_an_end_is_as_long_as_the_longest(
    evaluation: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where no end is learned, what would follow the answer is not written."""
    path = tmp_path / "answers.jsonl"
    path.write_text('{"ask": "film", "say": " a"}\n' * 3)
    values = settings(material, tmp_path) | {"held_out_data": path, "samples": 2}
    asked = {"prompt_field": "ask", "completion_field": "say", "held_out_examples": "null"}
    lengths = []
    for learn_end in (False, True):
        found = measured(evaluation, capsys, values | asked | {"learn_end": learn_end})
        assert isinstance(found["samples"], list)
        lengths.append(sum(len(sample["written"]) for sample in found["samples"]))
    assert lengths[0] <= len(" a a") < lengths[1]


def test_a_trained_classifier_is_measured_with_its_head(
    evaluation: ModuleType,
    train: Train,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The accuracy is that on the run's card, of the saved head, and not that of a fresh one."""
    path = tmp_path / "moods.jsonl"
    records = (
        {"text": "joy film" if i % 4 else "dull", "label": int(i % 4 > 0)} for i in range(60)
    )
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    told = learning_all_of(path) | {"task": "sequence-classification", "labels": "bad,good"}
    folder = train(**told) / "tiny"
    values = settings(material, tmp_path) | told
    adapted = measured(evaluation, capsys, values | {"adapter": folder})
    assert adapted["accuracy"] == 1
    assert adapted["F1 of bad"] == 1
    assert "| after training (step 8) | 100.0% |" in (folder / "README.md").read_text()
    assert measured(evaluation, capsys, values)["accuracy"] != 1


def test_a_classifier_of_words_is_measured_with_its_head(
    evaluation: ModuleType,
    train: Train,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each word counts once, and the saved head is the one that is asked."""
    path = tmp_path / "tags.jsonl"
    lines = (
        {"words": words, "label": ["film" if word == "film" else "other" for word in words]}
        for words in (["the", "film", "was"] * (1 + i % 2) for i in range(60))
    )
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    told = learning_all_of(path) | {"task": "token-classification", "labels": "other,film"}
    folder = train(**told) / "tiny"
    values = settings(material, tmp_path) | told
    adapted = measured(evaluation, capsys, values | {"adapter": folder})
    assert adapted["accuracy"] == 1
    assert adapted["macro F1"] == 1
    assert measured(evaluation, capsys, values)["accuracy"] != 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"held_out_data": "null"}, "--held_out_data"), ({"adapter": "nowhere"}, "holds no adapter")],
)
def test_what_cannot_be_measured_is_one_line(
    evaluation: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, and what to do."""
    with pytest.raises(SystemExit) as caught, terminal.one_line_errors():
        evaluation.main(as_arguments(settings(material, tmp_path) | changes))
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_private_examples_are_not_measured(
    evaluation: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The training file at hand is compared: exact metrics of it would be printed."""
    values = settings(material, tmp_path) | {"held_out_data": material / "private.jsonl"}
    with pytest.raises(SystemExit):
        measured(evaluation, capsys, values)
    assert "private training data" in capsys.readouterr().err
