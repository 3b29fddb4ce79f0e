"""What the terminal module prints around its tables."""

from __future__ import annotations

import pytest

from dpacc.cli import terminal

FOLDER = "/a/folder/whose/path/is/longer/than/the/table/below/it/and/than/eighty/columns/smollm2"


def test_a_title_that_is_a_path_stays_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever copies it from above a narrow table has all of it."""
    terminal.show_facts(title=FOLDER, facts=[("accuracy", "0.86")])
    terminal.show_table(title=FOLDER, columns=("word", "F1"), rows=[("yes", "0.85")])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines.count(FOLDER) == 2
    assert [line.split() for line in lines if line != FOLDER] == [
        ["accuracy", "0.86"],
        ["word", "F1"],
        ["yes", "0.85"],
    ]
