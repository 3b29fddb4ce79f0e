"""The table of faults in docs/assurance.md is that of tests/faults.py, whose tests exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults import BEGIN, END, FAULTS, PAGE, Fault, table
from tests.mutants.bugs import BUGS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_test_that_is_never_skipped_shows_each_fault(fault: Fault) -> None:
    """It stands in the named file, and no mark keeps it from running."""
    tree = ast.parse((ROOT / fault.file).read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == fault.test]
    (test,) = found
    assert test.name.startswith("test_")
    assert not [mark for mark in test.decorator_list if "skip" in ast.dump(mark)]
    assert "pytest.skip" not in ast.unparse(test)


def test_the_published_table_is_that_of_the_faults() -> None:
    """`python -m tests.faults` wrote it, and each fault has a name of its own."""
    assert PAGE.read_text().split(BEGIN)[1].split(END)[0].strip() == table().strip()
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_the_page_begins_with_the_same_numbers() -> None:
    """Its first table counts the bugs and the faults that stand below it."""
    summary = PAGE.read_text().split("## Audits")[0]
    assert f"| {len(BUGS)} of {len(BUGS)} caught |" in summary
    assert f"| {len(FAULTS)} of {len(FAULTS)} survived" in summary
