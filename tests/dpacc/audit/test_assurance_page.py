"""docs/assurance.md says what happens: its code runs, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dpacc.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/assurance.md").read_text()


def test_the_audit_of_another_trainer_refutes_its_claim(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The block runs as it stands, and a third of the claimed noise is found out, by any coins."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(block, "assurance.md", "exec"), {})
    refuted, epsilon = capsys.readouterr().out.split()
    assert refuted == "True"
    assert float(epsilon) > 2


def test_commands_and_files_on_the_page_exist() -> None:
    """Every dpacc command is one, and every script is there."""
    named = re.findall(r"dpacc (\w+) [A-Za-z]", PAGE)
    assert {"audit", "attack"} <= set(named) <= COMMANDS.keys()
    scripts = re.findall(r"`((?:benchmarks|recipes)/\w+\.py)`", PAGE)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)
