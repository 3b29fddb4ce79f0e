"""`dpacc run` and its short names become the recipe's own process, and nothing else of it."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from pathlib import Path

import pytest

from dpacc.cli.subcommands.recipes import LAUNCHED, RECIPES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that processes became."""
    lines: list[list[str]] = []

    def become(_: str, line: list[str]) -> None:
        lines.append(line)

    monkeypatch.setattr(os, "execv", become)
    return lines


def test_a_recipe_gets_its_settings_as_they_are(dpacc, started: list[list[str]]) -> None:
    """By either name, help and unknown options too; what is run is shown on stderr alone."""
    recipe = str(ROOT / "recipes/train.py")
    for words in (["train"], ["run", "train"]):
        outcome = dpacc(*words, "--name", "a b", "--epsilon=8")
        assert outcome.out == ""
        assert outcome.err == f"$ python {recipe} --name 'a b' --epsilon=8\n"
        assert started.pop() == [sys.executable, recipe, "--name", "a b", "--epsilon=8"]
    assert dpacc("evaluate", "--help").out == ""
    assert dpacc("run", "sweep", "--", "--help").out == ""
    assert [line[-1] for line in started] == ["--help", "--help"]


def test_a_launch_is_named_or_ones_own_file(
    dpacc, started: list[list[str]], tmp_path: Path
) -> None:
    """With what `accelerate launch` is told besides; another name lists those that there are."""
    own = tmp_path / "own.yaml"
    own.write_text("num_processes: 1\n")
    for launch, file, more in (
        ("ddp --num_processes 2", ROOT / "launch_configs/ddp.yaml", ["--num_processes", "2"]),
        (str(own), own, []),
    ):
        outcome = dpacc("train", "--launch", launch, "--epsilon", "8")
        assert outcome.err.startswith(f"$ accelerate launch --config_file {file} ")
        line = started.pop()
        assert line[4:6] == ["--config_file", str(file)]
        assert line[6:] == [*more, str(ROOT / "recipes/train.py"), "--epsilon", "8"]
    outcome = dpacc("train", "--launch", "gpu")
    assert outcome.code == 2
    assert "single_gpu" in outcome.err
    assert "leave --launch out" in dpacc("run", "predict", "--launch", "cpu").err
    assert started == []


def test_ledgers_are_not_taken_for_an_adapter(dpacc, started: list[list[str]]) -> None:
    """The name that ledgers had says the one that they have; nothing is started."""
    outcome = dpacc("merge", "a.jsonl", "b.jsonl")
    assert outcome.code == 2
    assert "`dpacc merge-ledgers a.jsonl b.jsonl`" in outcome.err
    assert outcome.err.count("\n") == 1
    assert started == []
    dpacc("merge", "--adapter", "runs/a", "--output", "merged")
    assert [line[1:] for line in started] == [
        [str(ROOT / "recipes/merge.py"), "--adapter", "runs/a", "--output", "merged"]
    ]


def test_where_nothing_could_train_the_extra_is_named(
    dpacc, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and no traceback of the recipe."""
    monkeypatch.setattr("dpacc.cli.subcommands.recipe_commands.find_spec", lambda _: None)
    outcome = dpacc("train")
    assert outcome.code == 2
    assert "pip install 'dpacc[train]'" in outcome.err
    assert started == []


def test_wheels_have_the_recipes_that_are_started() -> None:
    """All that train or measure, and none that writes data beside itself; ranks join where said."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    scripts = {path.stem: path.read_text() for path in (ROOT / "recipes").glob("*.py")}
    own = {name for name, code in scripts.items() if "Path(__file__)" not in code}
    shipped = {name for name in own if "from fetch_" not in scripts[name]} - {"simulate_patients"}
    assert "simulate_patients.py" in scripts["fetch_clinical"]
    assert {*RECIPES} == shipped
    assert told["targets"]["wheel"]["hooks"]["custom"]["recipes"] == sorted(RECIPES)
    for name in RECIPES:
        doc = ast.get_docstring(ast.parse(scripts[name])) or ""
        assert ("accelerate launch" in doc) == (name in LAUNCHED), name
