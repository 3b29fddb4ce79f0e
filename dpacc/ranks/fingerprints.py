"""What ranks must have in common, in a few bytes: the same code, and the same data in one order."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dpacc.ranks.collectives import Digest

_EXAMPLES_READ = 256


@cache
def code_fingerprint() -> Digest:
    """Of every source file of dpacc and its accountant, so that an edited copy is noticed.

    Read once a process: files that are edited while a run goes on are not what it runs.
    """
    digest = hashlib.sha256()
    for package in ("dpacc", "dpacc_accounting"):
        spec = find_spec(package)
        assert spec is not None
        for folder in map(Path, spec.submodule_search_locations or ()):
            for file in sorted(folder.rglob("*.py")):
                _add(digest, [str(file.relative_to(folder)).encode(), file.read_bytes()])
    return Digest(digest.hexdigest())


def data_fingerprint(dataset: Sequence[Any], units: Sequence[Hashable] | None = None) -> Digest:
    """Of evenly spaced examples, with their numbers, and of whose they are.

    Ranks that hold the same examples in another order would take some twice and others never.

    >>> data = [{"input_ids": [1, 2]}, {"input_ids": [3]}]
    >>> data_fingerprint(data) == data_fingerprint(data[::-1])
    False
    """
    digest = hashlib.sha256()
    every = max(1, len(dataset) // _EXAMPLES_READ)
    for index in range(0, len(dataset), every):
        owner = None if units is None else units[index]
        _add(digest, [str(index).encode(), _bytes(dataset[index]), repr(owner).encode()])
    return Digest(digest.hexdigest())


def _add(digest: Any, parts: Iterable[bytes]) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)


def _bytes(value: Any) -> bytes:
    """A value by what it holds; of unknown objects only the type, for their text may vary."""
    if isinstance(value, Mapping):
        return b"".join(repr(key).encode() + _bytes(value[key]) for key in sorted(value, key=repr))
    if isinstance(value, str):
        return value.encode()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # lists within lists, of different lengths
        array = np.asarray(None)
    if array.dtype != object:
        return array.tobytes()
    if isinstance(value, list | tuple):
        return b"".join(_bytes(item) for item in value)
    return type(value).__name__.encode()
