"""The page on accuracy names commands, settings and pictures that there are."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from dpacc.recipe.config import TrainingConfig
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/utility.md").read_text()


def test_every_command_on_the_page_exists() -> None:
    """Each names a script, and a subcommand that the script defines."""
    commands = re.findall(r"python (\S+\.py)(?: ([a-z]+))?", PAGE)
    assert ("benchmarks/utility.py", "main") in commands
    for script, subcommand in commands:
        source = (ROOT / script).read_text()
        assert not subcommand or f'.command("{subcommand}")' in source


def test_every_setting_on_the_page_exists() -> None:
    """What stands as `name: value` is a setting of a run."""
    named = set(re.findall(r"`([a-z_]+):", PAGE))
    assert named
    assert named <= {field.name for field in fields(TrainingConfig)}


def test_every_picture_and_page_is_there() -> None:
    """Links lead to files."""
    links = re.findall(r"\]\(([\w./]+)\)", PAGE)
    assert all((ROOT / "docs" / link).is_file() for link in links)


def test_the_figure_of_ranks_hides_neither_its_origin_nor_its_error() -> None:
    """It shows the page's table from guessing upwards, with a standard error on every point."""
    chart = load_script(ROOT / "benchmarks/utility_chart.py")
    ranks, accuracies, untrained, sentences = chart.recorded(PAGE)
    assert ranks == [2, 4, 8, 16, 32]
    assert accuracies["lora"] == [80.6, 81.8, 80.4, 80.5, 81.3]
    assert (untrained, sentences) == (77.3, 1376)
    (axes,) = chart.ranks_figure(
        ranks=ranks, accuracies=accuracies, untrained=untrained, sentences=sentences
    ).axes
    assert axes.get_ylim()[0] == 50
    lines = dict(zip(accuracies, axes.containers, strict=True))
    for method, (points, _, (bars,)) in lines.items():
        assert points.get_ydata().tolist() == accuracies[method]
        for value, bar in zip(accuracies[method], bars.get_segments(), strict=True):
            error = (value * (100 - value) / sentences) ** 0.5
            assert bar[:, 1].tolist() == pytest.approx([value - error, value + error])


def test_the_rates_beside_the_default_are_kept_results() -> None:
    """What chats have at the default's rate and at 1e-2 is of one run each, alike in all else."""
    kept = [ROOT / "benchmarks/results" / f"{name}.jsonl" for name in ("learning_rate", "frontier")]
    kept.append(ROOT / "benchmarks/results/dynamic_rank.jsonl")
    runs = [json.loads(line) for path in kept for line in path.read_text("utf-8").splitlines()]
    told = {}
    for each in runs:
        run = dict(each["run"])
        rate = run.pop("learning_rate")
        plain = {"tool": "dpacc", "epsilon": 8.0, "batch": 128, "steps": 48, "average": 0.5}
        if run == plain and each["layers"] == 3:
            found = each["held_out"]
            told[rate] = f"{found['perplexity']:.2f}, ", f"{found['loss']:.3f}"
    (default,) = (f.default for f in fields(TrainingConfig) if f.name == "learning_rate")
    assert {*told} == {default, 0.01}
    row = f"| {told[default][0]}loss {told[default][1]} | {told[0.01][0]}{told[0.01][1]} |"
    assert row in PAGE


def test_the_rates_where_classes_are_told_are_kept_results() -> None:
    """Accuracy and loss of plain LoRA at both rates and budgets, of one run each on two tasks."""
    path = ROOT / "benchmarks/results/frontier.jsonl"
    kept = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    page = PAGE.split("**Why 5e-3 and not 1e-2**")[1]
    for task, name in (("sentences-4608", "other sentences"), ("sentiment-2048", "whole reviews")):
        found = {
            (run["epsilon"], run["learning_rate"]): each["held_out"]
            for each in kept
            if each["task"] == task and (run := each["run"])["tool"] == "dpacc"
            if "method" not in run and run["epsilon"]
        }
        assert len(found) == 4
        rows = page.split(f"| [{name}]")[1].split("\n")[:2]
        for epsilon, row in zip((1.0, 8.0), rows, strict=True):
            two = (found[epsilon, rate] for rate in (0.005, 0.01))
            told = " | ".join(f"{100 * e['accuracy']:.1f}%, {e['loss']:.3f}" for e in two)
            assert f"| {epsilon:g} | {told} |" in row
