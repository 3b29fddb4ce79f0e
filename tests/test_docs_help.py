"""The pages that help: their program runs, their words exist, and the messages are the source's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpacc.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
QUESTIONS = (ROOT / "docs/faq.md").read_text()
MESSAGES = (ROOT / "docs/troubleshooting.md").read_text()


def test_what_an_epsilon_is_worth_is_what_the_program_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The figures beneath the block are the block's own."""
    (program,) = re.findall(r"```python\n(.*?)```", QUESTIONS, flags=re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", QUESTIONS, flags=re.DOTALL)
    exec(compile(program, "faq.md", "exec"), {})
    assert capsys.readouterr().out == said


def test_every_question_names_commands_that_exist() -> None:
    """And so does the first page."""
    pages = QUESTIONS + (ROOT / "docs/index.md").read_text()
    named = set(re.findall(r"`dpacc ([a-z-]+)", pages))
    assert len(named) >= 8
    assert named <= set(COMMANDS)


def test_figures_of_quality_are_those_of_their_page() -> None:
    """Accuracies are quoted from utility.md's first table and what follows it."""
    page = (ROOT / "docs/utility.md").read_text()
    for figure in ("85.6", "84.9", "87.1", "79.2"):
        assert f"{figure}%" in QUESTIONS
        assert figure in page


def test_every_message_is_one_that_the_source_raises() -> None:
    """Between the dots, word by word."""
    known = list(raised())
    shown = re.findall(r"^\| `(.*?)` \|", MESSAGES, flags=re.MULTILINE)
    assert len(shown) >= 25
    missing = [words for words in shown if not any(says(each, words) for each in known)]
    assert missing == []


def says(message: str, words: str) -> bool:
    """Whether a message holds the words, whatever stands for the dots in both."""
    pattern = ".*".join(re.escape(part.strip()) for part in words.split("…"))
    return re.search(pattern, message) is not None


def raised() -> Iterator[str]:
    """Every text in the source, with dots for what is put in."""
    for folder in ("dpacc", "accounting/src"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
