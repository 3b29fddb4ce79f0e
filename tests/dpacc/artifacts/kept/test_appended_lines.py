"""Lines that are only added to: what counts is what the mark says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpacc.artifacts.kept.appended_lines import AppendedLines

ROWS = [{"number": number, "name": "naïve\u2028"} for number in range(3)]


def test_what_a_crash_left_is_cut_off(tmp_path: Path) -> None:
    """A line that was torn, or is whole and does not count yet, gives way to the next."""
    for left in (b'{"number": 9', b'{"number": 9}\n'):
        lines = AppendedLines(tmp_path / "lines.jsonl")
        lines.extend(ROWS[:2])
        mark = lines.mark
        with lines.path.open("ab") as file:
            file.write(left)
        again = AppendedLines(lines.path)
        assert again.take_up(mark) == ROWS[:2]
        again.extend(ROWS[2:])
        assert AppendedLines(lines.path).take_up(again.mark) == ROWS
        assert again.count == 3
        assert lines.path.read_bytes().count(b"\n") == 3
        assert lines.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c.replace(b"1", b"7"), lambda c: b""]
)
def test_lines_that_count_and_are_not_there_are_refused(tmp_path: Path, change: object) -> None:
    """Cut off or changed: nothing is guessed."""
    lines = AppendedLines(tmp_path / "lines.jsonl")
    lines.extend(ROWS)
    lines.path.write_bytes(change(lines.path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match="does not begin with the lines that count"):
        AppendedLines(lines.path).take_up(lines.mark)
