"""How the house is kept: tests say what they show, and rooms stay small."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 400


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def test_every_test_says_the_fact_it_shows() -> None:
    """Each test function has a docstring."""
    silent, tests = [], 0
    for path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                tests += 1
                if ast.get_docstring(node) is None:
                    silent.append(f"{path.name}: {node.name}")
    assert tests > 50
    assert silent == []


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    """Every source file has at most 400 lines."""
    folders = ("dpacc", "accounting/src", "recipes", "benchmarks")
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*folders)}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_no_file_name_hides_what_it_is_for() -> None:
    """No utils, helpers, common or manager."""
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [
        p for p in sources("dpacc", "accounting/src", "recipes", "tests") if p.stem in vague
    ] == []


def asks_the_disk(code: str) -> bool:
    """Whether code calls the system's own `fsync`, which on a Mac does not reach the disk."""
    calls = {"fsync", "fdatasync"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in calls)
        or (isinstance(node, ast.ImportFrom) and calls & {each.name for each in node.names})
        for node in ast.walk(ast.parse(code))
    )


def test_one_file_alone_asks_the_disk() -> None:
    """All others call `sync_file` and `sync_folder`, which know what each system needs."""
    folders = ("dpacc", "accounting/src", "recipes", "benchmarks", "deploy")
    found = [path.name for path in sources(*folders) if asks_the_disk(path.read_text())]
    assert found == ["disk.py"]


def test_one_that_asks_itself_is_found() -> None:
    """By the module's name, by the function's own, or for data alone."""
    for line in (
        "import os\nos.fsync(3)",
        "from os import fsync",
        "import os as o\no.fdatasync(3)",
    ):
        assert asks_the_disk(line)
    assert not asks_the_disk("from dpacc_accounting.ledger.disk import sync_file\nsync_file(3)")
