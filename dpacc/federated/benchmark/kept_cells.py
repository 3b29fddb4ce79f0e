"""What cells found, one line each, on disk before the next begins: a killed benchmark goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import sync_file

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.cells import Cell

CELLS = "cells.jsonl"

Found = Mapping[str, Any]


class KeptCells:
    """Results by the whole configuration of their cells; what is known is not trained again.

    Args:
        folder: where `cells.jsonl` is, or will be.

    Raises:
        ConfigurationError: a line of it that is not the last cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CELLS
        self._known = {line["key"]: line for line in read_cells(folder)}

    def find(self, cell: Cell) -> Found | None:
        """What this very cell found, if it was trained before."""
        return self._known.get(cell.key)

    def keep(self, cell: Cell, found: Found) -> Found:
        """Write down what a cell found, and see it on the disk."""
        line = {"key": cell.key, "cell": asdict(cell), **found}
        whole = json.dumps(line, allow_nan=False) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _end_a_torn_line(self._path)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(whole)
            file.flush()
            sync_file(file.fileno())
        self._known[cell.key] = json.loads(whole)
        return self._known[cell.key]


def read_cells(folder: Path) -> list[Found]:
    """Every whole line, in order; the last is left out where a kill cut it off.

    Raises:
        ConfigurationError: another line cannot be read.
    """
    path = folder / CELLS
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in whole]
    except ValueError:
        raise ConfigurationError(
            f"{path} is damaged before its last line: delete the file, or the line"
        ) from None


def _end_a_torn_line(path: Path) -> None:
    """Cut off what follows the last line's end."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
