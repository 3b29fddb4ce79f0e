"""The page on accuracy names commands, settings and pictures that there are."""

from __future__ import annotations

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
