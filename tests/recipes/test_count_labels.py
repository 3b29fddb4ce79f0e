"""Labels are counted with noise, charged, and asked for at the price of both releases."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from dpacc_accounting import merge_ledgers, read_ledger
from dpacc_accounting.guarantee import rounded_up

from tests.recipes.training import RECIPE, as_arguments, lines, listed, refusal, settings
from tests.scripts import load_script


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE.with_name("count_labels.py"))


@pytest.fixture
def told(material: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Settings for counting sixty records, forty-five of them of one label, of six authors."""
    rows = ({"label": "joy" if at % 4 else "dull", "text": f"the film {at}"} for at in range(60))
    owned = ({**row, "author": f"author {at % 6}"} for at, row in enumerate(rows))
    listed(tmp_path / "labelled.jsonl", *owned)
    (tmp_path / "labels.json").write_text('{"joy": 1, "dull": 1}')

    def given(**changes: object) -> dict[str, object]:
        shared: dict[str, object] = {
            "train_data": tmp_path / "labelled.jsonl",
            "labels_from": tmp_path / "labels.json",
            "prompt_field": "label",
            "completion_field": "text",
            "count_noise": 2,
        }
        return settings(material, tmp_path / "runs") | shared | changes

    return given


def test_labels_are_asked_for_as_they_occur_at_the_price_of_both(
    counting: ModuleType,
    told: Callable[..., dict[str, object]],
    write: Callable[..., Path],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three of four are of the commoner label; file, screen and card state what both cost."""
    counting.main(as_arguments(told(as_json=True)))
    said = json.loads(capsys.readouterr().out)
    folder = Path(said["folder"])
    assert abs(said["counts"]["joy"] - 45) < 20
    path = write(
        labels_from=folder,
        prompt_field="label",
        completion_field="text",
        train_data=tmp_path / "labelled.jsonl",
        records=20,
    )
    labels = [each["label"] for each in lines(path)]
    counts = {label: max(count, 0) for label, count in said["counts"].items()}
    assert abs(labels.count("joy") - 20 * counts["joy"] / sum(counts.values())) <= 1
    ledgers = {"one": finished / "ledger.jsonl", "two": folder / "ledger.jsonl"}
    both = merge_ledgers(records={name: read_ledger(path=each) for name, each in ledgers.items()})
    card = json.loads(path.with_name(f"{path.name}.card.json").read_text())
    stated = json.loads((finished / "privacy.json").read_text())["guarantee"]["epsilon"]
    assert card["guarantee"]["epsilon"] == both.together.epsilon > stated + 0.01
    assert card["label_counts"]["head"] == read_ledger(path=ledgers["two"]).head
    words = " ".join(path.with_name(f"{path.name}.card.md").read_text().split())
    assert f"(ε = {rounded_up(both.together.epsilon)}, δ = 0.001)" in words
    assert "the adapter and the noised counts of labels together" in words
    assert "the statement below for the training alone" in words
    shown = " ".join(capsys.readouterr().out.split())
    assert f"ε of the adapter and the label counts {rounded_up(both.together.epsilon)}" in shown


def test_owners_vote_once(
    counting: ModuleType,
    told: Callable[..., dict[str, object]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six authors cast six votes, and the ledger says whose they are."""
    counting.main(as_arguments(told(unit_field="author", count_noise=1, as_json=True)))
    said = json.loads(capsys.readouterr().out)
    assert abs(said["counts"]["joy"] + said["counts"]["dull"] - 6) < 12
    plan = read_ledger(path=Path(said["folder"]) / "ledger.jsonl").plan
    assert (plan["unit"], plan["dataset_size"], plan["count_noise"]) == ("author", 6, 1)


def test_the_pages_command_counts(
    counting: ModuleType,
    told: Callable[..., dict[str, object]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command of docs/synthetic.md runs on a tiny file of ours, and says what it cost."""
    page = (RECIPE.parents[1] / "docs/synthetic.md").read_text()
    (shown,) = re.findall(r"^python recipes/count_labels.py (.*)$", page, re.MULTILINE)
    arguments = [
        str(RECIPE.parents[1] / each) if "/configs/" in each else each
        for each in shlex.split(shown)
    ]
    counting.main([*arguments, *as_arguments(told())])
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "ε",
        "at δ =",
        "add-or-remove",
        "privacy unit",
        "method",
        "what the training costs",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt_field": "null", "completion_field": "null"}, "name their field with"),
        ({"labels_from": "labelled.jsonl"}, "is the private training data"),
        ({"labels_from": "."}, "give a public file of all labels"),
    ],
)
def test_labels_that_are_not_public_are_refused(
    counting: ModuleType,
    told: Callable[..., dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Nothing is counted, and no folder is left."""
    monkeypatch.chdir(tmp_path)
    assert words in " ".join(refusal(counting.main, as_arguments(told(**changes)), capsys).split())
    assert not (tmp_path / "runs").exists()
