"""The recipes within their data's budget: `budget: FILE`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from dpacc_accounting import Budget, create_budget, read_ledger

from tests.recipes.test_sweep import sweep, values  # noqa: F401
from tests.recipes.training import RECIPE, Train, as_arguments, listed, refusal, settings
from tests.scripts import load_script


@pytest.fixture
def budget(material: Path, tmp_path: Path) -> Path:
    """Of the private texts: room for one run of ε = 8."""
    return made(tmp_path / "budget.jsonl", material, epsilon=8.0)


def made(path: Path, material: Path, *, epsilon: float) -> Path:
    data, key = material / "private.jsonl", path.with_suffix(".key")
    create_budget(path=path, name="films", epsilon=epsilon, delta=1e-3, data=data, key=key)
    return path


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE.with_name("count_labels.py"))


def states(budget: Path) -> list[str]:
    return [share.state for share in Budget(path=budget).read().shares.values()]


def test_a_second_run_is_refused_and_leaves_nothing(
    train: Train, budget: Path, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first commits its ledger; the second, and one on other data, are one line and exit 2."""
    folder = train(budget=budget, delta=1e-3, steps=2) / "tiny"
    (share,) = Budget(path=budget).read().shares.values()
    assert (share.state, share.event) == (
        "committed",
        read_ledger(path=folder / "ledger.jsonl").event,
    )
    assert str(budget) not in (folder / "README.md").read_text()
    other = tmp_path / "other.jsonl"
    other.write_text((material / "private.jsonl").read_text() + '{"text": "the film was a joy"}\n')
    for changes, culprit in (
        ({"name": "second"}, "budget 'films' allows ε = 8"),
        ({"name": "second", "train_data": other}, "is not the data of budget 'films'"),
        ({"name": "second", "budget": tmp_path / "absent"}, "cannot read budget"),
    ):
        before = budget.read_bytes()
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            train(**{"budget": budget, "delta": 1e-3, "steps": 2} | changes)
        said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(said) == 1
        assert culprit in said[0]
        assert not (folder.parent / "second").exists()
        assert budget.read_bytes() == before


def test_a_search_is_reserved_as_a_whole(
    sweep: ModuleType,  # noqa: F811
    material: Path,
    budget: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its one charge is what the budget holds; a second search is refused before any trial."""
    asked = {"budget": budget, "delta": 1e-3, "steps": 2}
    sweep.main(values(material, tmp_path / "runs", **asked))
    (share,) = Budget(path=budget).read().shares.values()
    assert share.state == "committed"
    assert share.event == read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl").event
    arguments = values(material, tmp_path / "runs", **asked, name="second")
    assert "budget 'films' allows ε = 8" in refusal(sweep.main, arguments, capsys)
    assert not (tmp_path / "runs/second").exists()
    public = values(material, tmp_path / "runs", **asked, name="public", data_is_public=True)
    assert "leave budget out" in refusal(sweep.main, public, capsys)
    assert states(budget) == ["committed"]


def test_counts_of_labels_are_reserved_before_they_are_drawn(
    counting: ModuleType, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they cost is the budget's to grant: too little noise, or other data, leaves nothing."""
    budget = made(tmp_path / "small.jsonl", material, epsilon=2.0)
    labels = tmp_path / "labels.json"
    labels.write_text('{"joy": 1, "dull": 1}')
    other = listed(tmp_path / "other.jsonl", {"author": "joy", "text": "its music"})
    given = settings(material, tmp_path / "runs") | {
        "budget": budget,
        "delta": 1e-3,
        "labels_from": labels,
        "prompt_field": "author",
        "completion_field": "text",
        "count_noise": 2,
    }
    counting.main(as_arguments(given))
    (share,) = Budget(path=budget).read().shares.values()
    paid = read_ledger(path=tmp_path / "runs/tiny-labels/ledger.jsonl")
    assert (share.state, share.event) == ("committed", paid.event)
    for changes, culprit in (
        ({"count_noise": 1, "name": "loud"}, "budget 'films' allows ε = 2"),
        ({"train_data": other, "name": "other"}, "is not the data of budget 'films'"),
    ):
        said = refusal(counting.main, as_arguments(given | changes), capsys)
        assert culprit in " ".join(said.split())
        assert [each.name for each in (tmp_path / "runs").iterdir()] == ["tiny-labels"]
    assert states(budget) == ["committed"]
