"""The whole of it: training with canaries, writing, and a verdict on what was written."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dpacc_accounting import read_ledger

from dpacc.recipe.settings import read_settings
from tests.recipes.training import RECIPE, as_arguments, lines, listed, refusal, settings
from tests.scripts import load_script


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe's own module, loaded from its file, which finds the recipes beside it."""
    monkeypatch.syspath_prepend(RECIPE.parent)
    return load_script(RECIPE.with_name("audit_synthetic.py"))


@pytest.fixture
def told(material: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments for a tiny run with sixty canaries that writes twenty records."""

    def given(**changes: object) -> list[str]:
        shared: dict[str, object] = {"canaries": 60, "records": 20, "max_length": 24, "steps": 2}
        return as_arguments(settings(material, tmp_path / "runs") | shared | changes)

    return given


def test_an_honest_run_is_audited_by_what_it_wrote(
    echo: ModuleType,
    told: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 0; N counts all canaries, in or not, and file, card, scores and ledger are there."""
    assert echo.main(told()) == 0
    shown = capsys.readouterr().out
    assert "by the n-grams of" in shown
    assert "not refuted" in shown
    folder = tmp_path / "runs/tiny"
    scores = json.loads((folder / "echo_scores.json").read_text())
    assert len(scores["scores"]) == len(scores["included"]) == 60
    assert 0 < sum(scores["included"]) < 60
    assert scores["plan"]["dataset_size"] == 120
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 2
    assert lines(folder / "audited.jsonl")
    assert (folder / "audited.jsonl.card.md").exists()


def test_a_writer_that_says_its_canaries_is_refuted(
    echo: ModuleType,
    told: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that repeats what it was trained on, behind the ledger's back: exit 1."""
    kept: list[Any] = []
    honest = echo.learn

    def learn(config: Any, canaries: Any) -> Any:
        pairs = zip(canaries.records, canaries.included, strict=True)
        kept.extend(record for record, inside in pairs if inside)
        return honest(config, canaries)

    monkeypatch.setattr(echo, "learn", learn)
    monkeypatch.setattr(echo, "synthesize", lambda config: listed(Path(config.output), *kept))
    assert echo.main(told(epsilon=1, as_json=True, canaries=400, ngram=6)) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["refuted"]
    assert found["epsilon_at_least"] > 1


def test_the_pages_command_is_read(echo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of docs/synthetic.md names files and settings that there are."""
    page = (RECIPE.parents[1] / "docs/synthetic.md").read_text()
    (shown,) = re.findall(r"recipes/audit_synthetic.py (.*)$", page, re.MULTILINE)
    monkeypatch.chdir(RECIPE.parents[1])
    config = read_settings(kind=echo.EchoConfig, arguments=shlex.split(shown))
    assert Path(config.labels_from).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit_field": "author"}, "unit_field has no effect in an audit"),
        ({"held_out_data": "null"}, "name some with --held_out_data"),
        ({"output": "there/x.jsonl"}, "must be a name, without a folder"),
    ],
)
def test_settings_that_an_audit_cannot_keep_are_refused(
    echo: ModuleType,
    told: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Each by its name, in one line."""
    assert words in " ".join(refusal(echo.main, told(**changes), capsys).split())
