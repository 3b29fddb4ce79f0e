"""Whether a run goes on: who holds its ledger's lock, read and never taken.

Trying the lock would keep a run from opening its ledger in that moment. Linux lists all locks of
this machine in a file; elsewhere it is not known whether an unfinished run goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

State: TypeAlias = Literal["running", "finished", "stopped", "unfinished", "damaged"]

_LOCKS = Path("/proc/locks")

WORDS: dict[State, str] = {
    "running": "running: a process on this machine holds its ledger",
    "finished": "finished: all planned steps are charged",
    "stopped": "stopped before its end: no process on this machine holds its ledger",
    "unfinished": "unfinished: whether it goes on is not known here",
    "damaged": "damaged: its ledger cannot be read",
}


def locked_files(*, table: Path = _LOCKS) -> frozenset[int] | None:
    """The inode numbers of all files that a process here has locked; None where nobody says so."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
        return frozenset(int(each.split()[-3].rpartition(":")[2]) for each in lines)
    except (OSError, ValueError, IndexError):
        return None


def state_of(
    *, ledger: Path, charged: int, planned: int | None, locked: frozenset[int] | None
) -> State:
    """A run's state, by its ledger's lock and by how many of its steps are charged.

    Of a search, which is charged at once, no number of steps is planned.

    >>> state_of(ledger=Path("/"), charged=6, planned=6, locked=frozenset())
    'finished'
    >>> state_of(ledger=Path("/"), charged=5, planned=6, locked=None)
    'unfinished'
    """
    if locked is not None and ledger.stat().st_ino in locked:
        return "running"
    if planned is not None and charged >= planned:
        return "finished"
    return "unfinished" if locked is None or planned is None else "stopped"
