"""What several commands take: books, and where a figure goes."""

import importlib.util
import json
from pathlib import Path

import pytest
from dpacc_accounting import Ledger

from tests.accounting.ledger.test_merging import PLAN, STEP


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, whose ledger holds 20 steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN) as book:
        for step in range(20):
            book.charge(step=step, event=STEP)
    return folder


@pytest.mark.parametrize("command", ["spend", "explain", "verify", "merge-ledgers"])
def test_a_runs_folder_stands_for_its_ledger(dpacc, run: Path, command: str) -> None:
    """Each command that reads a ledger says the same of the folder."""
    of_folder, of_file = (
        dpacc(command, "--json", run),
        dpacc(command, "--json", run / "ledger.jsonl"),
    )
    assert of_folder.code == of_file.code == 0
    assert json.loads(of_folder.out) == json.loads(of_file.out)


def test_a_folder_without_a_ledger_is_refused_in_one_line(dpacc, tmp_path: Path) -> None:
    """The line names the folder and what it lacks."""
    found = dpacc("spend", tmp_path)
    assert found.code == 2
    assert f"{tmp_path} is a folder without a ledger.jsonl" in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.png.gz"])
def test_a_figure_is_what_its_name_says(dpacc, run: Path, tmp_path: Path, name: str) -> None:
    """Another name is refused before anything is priced, and a right one is given."""
    found = dpacc("plot", run, "--out", tmp_path / name)
    assert found.code == 2
    assert ".png, .pdf or .svg" in found.err
    assert f"write {(tmp_path / name).with_suffix('.png')}" in found.err
    assert not (tmp_path / name).exists()


def test_a_figure_needs_its_folder(dpacc, run: Path, tmp_path: Path) -> None:
    """A missing folder is named before anything is priced."""
    found = dpacc("plot", run, "--out", tmp_path / "none" / "figure.png")
    assert found.code == 2
    assert f"there is no folder {tmp_path / 'none'}" in found.err


def test_without_matplotlib_a_figure_is_refused_in_one_line(
    dpacc, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an installation for accounting alone the extra to install is named."""
    known = importlib.util.find_spec
    monkeypatch.setattr(
        "dpacc.cli.options.find_spec", lambda name: None if name == "matplotlib" else known(name)
    )
    found = dpacc("plot", run, "--out", tmp_path / "figure.png")
    assert found.code == 2
    assert "pip install 'dpacc[plot]'" in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF-"), ("a.SVG", b"<?xml")],
)
def test_a_figure_is_drawn(dpacc, run: Path, tmp_path: Path, name: str, start: bytes) -> None:
    """With all that it needs, the file is of its name's kind, undated and the same every time."""
    picture, drawn = tmp_path / name, []
    for _ in range(2):
        assert dpacc("plot", run, "--kind", "profile", "--out", picture).code == 0
        drawn.append(picture.read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(start)
    assert b"CreationDate" not in drawn[0]
    assert b"dc:date" not in drawn[0]
