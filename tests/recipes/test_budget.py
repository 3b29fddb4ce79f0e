"""The recipes within their data's budget: `budget: FILE`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from dpacc_accounting import Budget, create_budget, read_ledger

from tests.recipes.test_sweep import sweep, values  # noqa: F401
from tests.recipes.training import Train, refusal


@pytest.fixture
def budget(material: Path, tmp_path: Path) -> Path:
    """Of the private texts: room for one run of ε = 8."""
    path = tmp_path / "budget.jsonl"
    key = tmp_path / "key"
    data = material / "private.jsonl"
    create_budget(path=path, name="films", epsilon=8.0, delta=1e-3, data=data, key=key)
    return path


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
