"""docs/assurance.md says what happens: its code runs, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dpacc.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/assurance.md").read_text()


def said_by(block: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words that a block of the page prints, as it stands there."""
    exec(compile(block, "assurance.md", "exec"), {})
    return capsys.readouterr().out.split()


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_what_canaries_share_hides_them_until_it_is_taken_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Products with the adapter's change prove nothing, the estimate made of them does."""
    products, estimate = map(float, said_by(BLOCKS[0], capsys))
    assert products < 0.5
    assert estimate > 1


def test_the_audit_of_another_trainer_refutes_its_claim(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A third of the claimed noise is found out, by any coins."""
    refuted, epsilon = said_by(BLOCKS[1], capsys)
    assert refuted == "True"
    assert float(epsilon) > 2


def test_commands_and_files_on_the_page_exist() -> None:
    """Every dpacc command is one, and every script is there."""
    named = re.findall(r"dpacc (\w+) [A-Za-z]", PAGE)
    assert {"audit", "attack"} <= set(named) <= COMMANDS.keys()
    scripts = re.findall(r"`((?:benchmarks|recipes)/\w+\.py)`", PAGE)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)
