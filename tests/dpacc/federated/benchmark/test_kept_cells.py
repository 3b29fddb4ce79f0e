"""Results are on the disk by the whole configuration of their cells, and survive a kill."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.cells import Cell
from dpacc.federated.benchmark.kept_cells import CELLS, KeptCells, read_cells

CELL = Cell(
    way="federated",
    model="model",
    data_set="some",
    epsilon=1.0,
    clients=4,
    aggregation="ffa",
    repeat=0,
    shared={"rounds": 2, "data": "digest"},
)
OTHERS: dict[str, Any] = {
    "way": "local",
    "model": "other",
    "data_set": "other",
    "epsilon": 2.0,
    "clients": 5,
    "aggregation": "average",
    "repeat": 1,
    "shared": {"rounds": 2, "data": "another digest"},
}


def test_whatever_differs_makes_another_cell() -> None:
    """Every field is in the key, what all cells share included."""
    assert {*OTHERS} == {each.name for each in fields(Cell)}
    changed = [replace(CELL, **{name: value}).key for name, value in OTHERS.items()]
    assert len({CELL.key, *changed}) == 1 + len(OTHERS)


def test_a_line_that_a_kill_tore_is_trained_again(tmp_path: Path) -> None:
    """What stands before it is known, and what is written next is whole."""
    KeptCells(tmp_path).keep(CELL, {"quality": 0.5})
    with (tmp_path / CELLS).open("a") as file:
        file.write('{"key": "to')
    again = KeptCells(tmp_path)
    assert again.find(CELL)["quality"] == 0.5  # type: ignore[index]
    assert again.find(replace(CELL, epsilon=2.0)) is None
    again.keep(replace(CELL, epsilon=2.0), {"quality": 0.6})
    assert [each["quality"] for each in read_cells(tmp_path)] == [0.5, 0.6]


def test_a_damaged_file_is_no_result(tmp_path: Path) -> None:
    """A whole line that is no JSON stops the benchmark instead of being skipped."""
    (tmp_path / CELLS).write_text("torn\n{}\n")
    with pytest.raises(ConfigurationError, match="is damaged"):
        KeptCells(tmp_path)
