"""Whether a run goes on, by the system's table of locks."""

from __future__ import annotations

from pathlib import Path

from dpacc.cli.dashboard.run_state import locked_files, state_of


def test_the_table_is_read_and_no_lock_taken(tmp_path: Path) -> None:
    """Inode numbers of whole-file and of waiting locks; where no table is, nothing is guessed."""
    table = tmp_path / "locks"
    table.write_text(
        "1: FLOCK  ADVISORY  WRITE 4901 fe:00:5570621 0 EOF\n"
        "2: POSIX  ADVISORY  READ  17 fe:00:12 0 EOF\n"
        "2: -> POSIX  ADVISORY  WRITE 18 fe:00:12 0 EOF\n"
    )
    assert locked_files(table=table) == {5570621, 12}
    assert locked_files(table=tmp_path / "none") is None


def test_a_held_ledger_runs_and_one_that_is_not_known_is_unfinished(tmp_path: Path) -> None:
    """A run that has charged all its steps and still holds its ledger is not finished yet."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.touch()
    own = frozenset({ledger.stat().st_ino})
    found = [
        state_of(ledger=ledger, charged=charged, planned=6, locked=locked)
        for charged, locked in ((6, own), (3, own), (6, None), (3, frozenset()), (3, None))
    ]
    assert found == ["running", "running", "finished", "stopped", "unfinished"]
    search = state_of(ledger=ledger, charged=1, planned=None, locked=frozenset())
    assert search == "unfinished"
