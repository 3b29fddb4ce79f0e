"""The shape of data: fields and kinds that all records have, and never a value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpacc.data.shape import DataShape, shape_of
from dpacc.errors import ConfigurationError

SECRET = "she came back in March"


def written(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_kinds_are_those_of_all_records(tmp_path: Path) -> None:
    """A field of several kinds has them all; one that a record lacks is counted and not named."""
    chat = [{"from": "human", "value": SECRET}]
    source = written(
        tmp_path / "notes.jsonl",
        {"note": SECRET, "age": 7, "chat": chat, "words": ["a"], "seen": True, "extra": 1},
        {"note": None, "age": 0.5, "chat": chat, "words": [], "seen": False},
    )
    assert shape_of(source=source) == DataShape(
        rows=2,
        fields={
            "note": "text or nothing",
            "age": "whole number or number",
            "chat": "chat",
            "words": "list of texts",
            "seen": "yes or no",
        },
        others=1,
    )


def test_a_row_where_a_header_lacks_is_not_shown(tmp_path: Path) -> None:
    """The first line of a table without names is data: what is no name is counted, never told."""
    path = tmp_path / "table.csv"
    path.write_text(f"{SECRET},once,and again\nb,c,d\n")
    shape = shape_of(source=str(path))
    assert (shape.rows, dict(shape.fields), shape.others) == (1, {"once": "text"}, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no examples"), (f'{{"a": 1}}\n["{SECRET}"]\n{SECRET}\n', "2 of 3 records are no")],
)
def test_what_holds_no_records_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Nothing at all, and lines that are no objects; what stands there is not quoted."""
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as refusal:
        shape_of(source=str(tmp_path / "t.jsonl"))
    assert SECRET not in str(refusal.value)
