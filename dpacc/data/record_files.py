"""Files of records: JSON, CSV, Parquet and text, packed or not, and folders of them.

Errors name the file and the place, and never the content of a record: it is private.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from dpacc.errors import ConfigurationError

FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
_PACKED = ".gz"
_DELIMITERS = ",;\t|"
_LONGEST_CELL = 2**31 - 1


class Place(NamedTuple):
    """Where a record stands.

    >>> str(Place("notes.jsonl", "line", 3)), str(Place("notes.json", "record", 3))
    ('notes.jsonl:3', 'notes.json, record 3')
    """

    file: str
    kind: str
    number: int

    def __str__(self) -> str:
        if self.kind == "line":
            return f"{self.file}:{self.number}"
        return f"{self.file}, {self.kind} {self.number}"


class Unreadable(NamedTuple):
    """What stands for a record that cannot be read: why not."""

    reason: str


Placed = Iterator[tuple[Place, Any]]


def file_type(path: Path) -> str | None:
    """The type of a file by its name, packed or not; None for no known one.

    >>> file_type(Path("notes.JSONL.gz")), file_type(Path("notes.zip"))
    ('.jsonl', None)
    """
    name = path.name.lower().removesuffix(_PACKED)
    packed = path.name.lower().endswith(_PACKED)
    found = next((each for each in FILE_TYPES if name.endswith(each)), None)
    return None if packed and found == ".parquet" else found


def read_files(*, path: Path, source: str, split: str) -> Placed:
    """Every record of a file, or of a folder of files of one type, with its place.

    Args:
        path: the file or folder.
        source: what the user calls it.
        split: which split of a folder that the `datasets` library saved.

    Raises:
        ConfigurationError: it cannot be read, whole.
    """
    if not path.exists():
        raise ConfigurationError(f"{source}: no such file (looked in {Path.cwd()})")
    if path.is_dir() and _is_saved_dataset(path):
        yield from _read_saved_dataset(path, source, split)
        return
    for each in _files_of(path, source) if path.is_dir() else [path]:
        yield from _read_file(each, source if each == path else str(each))


def _files_of(folder: Path, source: str) -> list[Path]:
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    known = [path for path in found if file_type(path) is not None]
    types = sorted({str(file_type(path)) for path in known})
    if not known:
        raise ConfigurationError(f"{source} is a folder without files of a known type: {_wanted()}")
    if len(types) > 1:
        raise ConfigurationError(
            f"{source} is a folder with files of several types ({', '.join(types)}): name one "
            "file, or keep the examples in a folder of their own"
        )
    return known


def _read_file(path: Path, source: str) -> Placed:
    readers: Mapping[str, Callable[[Path, str], Placed]] = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_table,
        ".tsv": _read_table,
        ".parquet": _read_parquet,
        ".txt": _read_text,
    }
    kind = file_type(path)
    if kind is None:
        raise ConfigurationError(f"{source} is not a file of a known type: {_wanted()}")
    try:
        yield from readers[kind](path, source)
    except UnicodeError:
        raise ConfigurationError(
            f"{source} is not UTF-8 text: convert it first, as with "
            "`iconv -f WINDOWS-1252 -t UTF-8`"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigurationError(f"{source} is no whole gzip file: pack it again") from None
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror}") from None


def _wanted() -> str:
    return f"give one of {', '.join(FILE_TYPES)}, packed as {_PACKED} or not, or a folder of them"


def _open(path: Path, *, newline: str | None = None) -> TextIO:
    """A text file, packed or not, without the mark that some programs put before the first byte."""
    if path.name.lower().endswith(_PACKED):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def _read_jsonl(path: Path, source: str) -> Placed:
    with _open(path) as lines:
        yield from read_lines(lines=lines, source=source)


def read_lines(*, lines: Iterable[str], source: str) -> Placed:
    """The record of each line of JSON that is not blank, with its place.

    Args:
        lines: of an open file, or of standard input.
        source: what the user calls it.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Place(source, "line", number), _parse(line)


def _read_json(path: Path, source: str) -> Placed:
    with _open(path) as file:
        records = _parse(file.read())
    if isinstance(records, Unreadable):
        raise ConfigurationError(f"{source} {records.reason}") from None
    if not isinstance(records, list):
        raise ConfigurationError(f"{source} must hold a list of objects (or be named .jsonl)")
    yield from ((Place(source, "record", i), record) for i, record in enumerate(records, 1))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Unreadable(f"is not JSON: {error.msg} (column {error.colno})")
    except RecursionError:
        return Unreadable("is not JSON that can be read: it is nested too deeply")
    except ValueError:  # a number of thousands of digits
        return Unreadable("is not JSON that can be read: a number in it is too long")


def _read_table(path: Path, source: str) -> Placed:
    """The rows of a CSV or TSV file, as texts, by the names in its first line."""
    with _open(path, newline="") as lines:
        header = lines.readline()
        tabs = file_type(path) == ".tsv"
        mark = "\t" if tabs else max(_DELIMITERS, key=header.count)
        before = csv.field_size_limit(_LONGEST_CELL)
        try:
            names = next(csv.reader([header], delimiter=mark), [])
            if len(set(names)) < len(names):
                raise ConfigurationError(f"{source}: two columns have one name in its first line")
            rows = csv.reader(lines, delimiter=mark, strict=True)
            for number, row in enumerate(rows, 1):
                if row:
                    yield Place(source, "row", number), _named(names, row)
        except csv.Error:
            raise ConfigurationError(
                f"{source} is no CSV file that can be read from row {rows.line_num} on: quotes "
                "do not match"
            ) from None
        finally:
            csv.field_size_limit(before)


def _named(names: list[str], row: list[str]) -> Any:
    if len(row) != len(names):
        return Unreadable(f"has {len(row)} cells where the first line names {len(names)}")
    return dict(zip(names, row, strict=True))


def _read_parquet(path: Path, source: str) -> Placed:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException:
        raise ConfigurationError(f"{source} is not a Parquet file") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield Place(source, "row", number), without_fillers(row)


def _read_text(path: Path, source: str) -> Placed:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Place(source, "line", number), {"text": line.rstrip("\n")}


def _is_saved_dataset(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _read_saved_dataset(folder: Path, source: str, split: str) -> Placed:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # of whatever its files are damaged by
        raise ConfigurationError(
            f"{source} is no dataset that can be read ({type(error).__name__}): save it again"
        ) from None
    if isinstance(found, DatasetDict):
        if split not in found:
            raise ConfigurationError(f"{source} has no split {split!r}: it has {', '.join(found)}")
        found = found[split]
    for number, row in enumerate(found, 1):
        yield Place(source, "record", number), without_fillers(row)


def without_fillers(row: Any) -> Any:
    """A row of a columnar file without the nulls that its columns put where nothing was.

    All objects in a list have all fields that any of them has.

    >>> without_fillers({"text": None, "chat": [{"role": "user", "name": None}]})
    {'text': None, 'chat': [{'role': 'user'}]}
    """
    if not isinstance(row, Mapping):
        return row
    return {name: _without_nulls(value) for name, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return value
