"""What was read from files, until they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")
Stamp = tuple[tuple[int, int, int] | None, ...]


class Kept(Generic[Value]):
    """Values by the files that they were read from; one is forgotten when a file is another."""

    def __init__(self) -> None:
        self._values: dict[tuple[Path, ...], tuple[Stamp, Value]] = {}

    def read(self, files: Sequence[Path], compute: Callable[[], Value]) -> Value:
        """What `compute` says, asked only if a file is not as it was then.

        Files are looked at first, so that one that changes meanwhile is read again next time.
        """
        stamp = tuple(map(_stamp, files))
        known = self._values.get((*files,))
        if known is not None and known[0] == stamp:
            return known[1]
        value = compute()
        self._values[*files,] = (stamp, value)
        return value

    def get(self, files: Sequence[Path]) -> Value | None:
        """What was computed of these files as they are now, if anything was."""
        known = self._values.get((*files,))
        return known[1] if known is not None and known[0] == (*map(_stamp, files),) else None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Which file it is, its size, and when it was changed; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
