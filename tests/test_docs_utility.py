"""The page on accuracy names commands, settings and pictures that there are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from dpacc.config import TrainingConfig

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
