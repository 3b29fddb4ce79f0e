"""Lines of JSON that are only ever added to, of which a small file beside them says which count.

What a crash left beyond the lines that count, whole or torn, is cut off by the next that are added;
so the small file, exchanged in one piece after the lines are on the disk, is all that must be
atomic, and a line costs what it is long, however many there are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import sync_file


class AppendedLines:
    """A file of lines, and how much of it counts.

    Args:
        path: of the file, which is its owner's alone.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     lines = AppendedLines(Path(folder) / "lines.jsonl")
    ...     lines.extend([{"number": 1}, {"number": 2}])
    ...     mark = lines.mark
    ...     lines.extend([{"number": 3}])
    ...     print(AppendedLines(lines.path).take_up(mark), mark["lines"])
    [{'number': 1}, {'number': 2}] 2
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = self._size = 0
        self._digest = hashlib.sha256()

    @property
    def count(self) -> int:
        """How many lines count."""
        return self._count

    @property
    def mark(self) -> dict[str, Any]:
        """Which lines count, for the small file."""
        return {
            "file": self.path.name,
            "lines": self._count,
            "bytes": self._size,
            "sha256": self._digest.hexdigest(),
        }

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows after those that count; they have reached the disk on return."""
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        added = b"".join(lines)
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(added)
            file.flush()
            sync_file(file.fileno())
        self._count += len(lines)
        self._size += len(added)
        self._digest.update(added)

    def take_up(self, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows that count by a mark, after which others may be added.

        Raises:
            ValueError: the file does not begin with them.
            OSError: it cannot be read.
        """
        with self.path.open("rb") as file:
            content = file.read(int(mark["bytes"]))
        digest = hashlib.sha256(content)
        rows = [json.loads(line) for line in content.splitlines()]
        if digest.hexdigest() != mark["sha256"] or len(rows) != mark["lines"]:
            raise ValueError(f"{self.path.name} does not begin with the lines that count")
        self._count, self._size, self._digest = len(rows), len(content), digest
        return rows
