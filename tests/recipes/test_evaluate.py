"""The evaluation recipe: an adapter or its bare base, measured on held-out data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dpacc_accounting import read_ledger

from dpacc.cli import terminal
from dpacc.doctor.stated import stated_findings
from tests.recipes.training import WORDS, Train, as_arguments, refusal, settings
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama

RECIPE = Path(__file__).parents[2] / "recipes/evaluate.py"

Measure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def evaluation() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


@pytest.fixture
def measure(
    evaluation: ModuleType, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Measure:
    """What the recipe prints as JSON, with some settings changed."""

    def run(**changes: object) -> dict[str, Any]:
        capsys.readouterr()
        values = settings(material, tmp_path) | changes | {"as_json": True}
        with terminal.one_line_errors():
            evaluation.main(as_arguments(values))
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_a_run_is_measured_by_its_folder_alone(
    train: Train, evaluation: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with all its settings; other ones are told, and a changed file is noticed."""
    folder = train() / "tiny"
    capsys.readouterr()

    def measured(*words: str) -> dict[str, Any]:
        evaluation.main(["--adapter", str(folder), "--as_json", "true", "--samples", "0", *words])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    course = json.loads((folder / "run.json").read_text())["course"]
    assert measured()["perplexity"] == pytest.approx(course[-1]["quality"], rel=1e-4)
    evaluation.main(["--adapter", str(folder), "--samples", "0", "--dtype", "bfloat16"])
    assert "trained on dtype=float32, and is used on dtype=bfloat16" in capsys.readouterr().err
    tuned = folder.parent / "tuned"
    save_tiny_llama(tuned, words=WORDS, seed=1)
    assert "tuned has other weights than the base of" in refusal(
        evaluation.main, ["--adapter", str(folder), "--model", str(tuned)], capsys
    )
    record = read_ledger(path=folder / "ledger.jsonl")
    assert all(each.healthy for each in stated_findings(folder=folder, record=record))
    (folder / "tokenizer.json").write_text("{}")
    (found,) = (e for e in stated_findings(folder=folder, record=record) if not e.healthy)
    assert "tokenizer.json is not what the run was saved with" in found.words


def lines(records: Iterable[object]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def test_an_adapter_is_measured_beside_its_base(train: Train, measure: Measure) -> None:
    """Both perplexities are those on the run's card, and samples go on from beginnings."""
    folder = train(learning_rate=0.1) / "tiny"
    asked = {"samples": 2, "sample_tokens": 4}
    base = measure(**asked)
    adapted = measure(**asked, adapter=folder)
    assert measure(**asked, adapter=folder, rank=1) != adapted
    card = (folder / "README.md").read_text()
    assert f"{adapted['perplexity']:.1f}" in card
    assert f"{base['perplexity']:.1f}" in card
    assert adapted["perplexity"] != base["perplexity"]
    assert isinstance(adapted["samples"], list)
    assert len(adapted["samples"]) == 2


def test_answers_and_classes_get_accuracy_and_f1(measure: Measure, tmp_path: Path) -> None:
    """A few different completions are answers; a classifier's labels are classes."""
    records = [
        {"text": "film", "ask": "film", "say": " joy" if i % 2 else " dull"} for i in range(9)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text(lines(records))
    asked = {"prompt_field": "ask", "completion_field": "say", "held_out_examples": 8}
    found = measure(held_out_data=path, samples=0, **asked)
    assert "samples" not in found
    assert found["held-out examples"] == 8
    assert round(float(str(found["accuracy"])) * 8, 9).is_integer()
    assert {"F1 of dull", "F1 of joy", "macro F1"} < set(found)
    classes = {"task": "sequence-classification", "label_field": "say", "labels": " joy, dull"}
    path.write_text(lines(each | {"say": 0} for each in records))
    found = measure(held_out_data=path, samples=0, **classes)
    assert {"accuracy", "macro F1"} < set(found)
    assert "perplexity" not in found


def test_a_sample_of_answers_without_an_end_is_as_long_as_the_longest(
    measure: Measure, tmp_path: Path
) -> None:
    """Where no end is learned, what would follow the answer is not written."""
    path = tmp_path / "answers.jsonl"
    path.write_text('{"ask": "film", "say": " a"}\n' * 3)
    asked = {"prompt_field": "ask", "completion_field": "say", "held_out_examples": "null"}
    lengths = []
    for learn_end in (False, True):
        found = measure(held_out_data=path, samples=2, learn_end=learn_end, **asked)
        assert isinstance(found["samples"], list)
        lengths.append(sum(len(sample["written"]) for sample in found["samples"]))
    assert lengths[0] <= len(" a a") < lengths[1]


def learned_by_heart(
    train: Train, measure: Measure, records: Path, **task: object
) -> tuple[Path, dict[str, Any]]:
    """A run that learned what is easy and was asked the same, and its adapter's figures.

    With a fresh head it would not know them all.
    """
    data = {"train_data": records, "held_out_data": records, "allow_held_out_overlap": True}
    told = data | {"epsilon": 1e4, "steps": 8, "expected_batch_size": 30, "learning_rate": 0.03}
    folder = train(**told, **task) / "tiny"
    found = measure(**told, **task, adapter=folder)
    assert found["accuracy"] == 1
    assert measure(**told, **task)["accuracy"] != 1
    return folder, found


def test_a_trained_classifier_is_measured_with_its_head(
    train: Train, measure: Measure, tmp_path: Path
) -> None:
    """The accuracy is that on the run's card, of the saved head, and not that of a fresh one."""
    path = tmp_path / "moods.jsonl"
    path.write_text(
        lines({"text": "joy film" if i % 4 else "dull", "label": int(i % 4 > 0)} for i in range(60))
    )
    task = {"task": "sequence-classification", "labels": "bad,good"}
    folder, found = learned_by_heart(train, measure, path, **task)
    assert found["F1 of bad"] == 1
    assert "| after training (step 8) | 100.0% |" in (folder / "README.md").read_text()


def test_a_classifier_of_words_is_measured_with_its_head(
    train: Train, measure: Measure, tmp_path: Path
) -> None:
    """Each word counts once, and the saved head is the one that is asked."""
    path = tmp_path / "tags.jsonl"
    path.write_text(
        lines(
            {"words": words, "label": ["film" if word == "film" else "other" for word in words]}
            for words in (["the", "film", "was"] * (1 + i % 2) for i in range(60))
        )
    )
    task = {"task": "token-classification", "labels": "other,film"}
    _, found = learned_by_heart(train, measure, path, **task)
    assert found["macro F1"] == 1


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
    wrong = as_arguments(settings(material, tmp_path) | changes)
    assert words in refusal(evaluation.main, wrong, capsys)


def test_private_examples_are_not_measured(
    measure: Measure, material: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training file at hand is compared: exact metrics of it would be printed."""
    with pytest.raises(SystemExit):
        measure(held_out_data=material / "private.jsonl")
    assert "private training data" in capsys.readouterr().err
