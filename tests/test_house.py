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
