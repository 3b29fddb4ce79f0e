"""What tests of several rooms are given."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    """Write a file below a temporary folder and return its path as text."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[Path]:
    """Fresh ledger paths."""
    return (tmp_path / f"ledger-{i}.jsonl" for i in range(1000))
