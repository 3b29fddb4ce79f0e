"""A new budget, with its key beside the data."""

from __future__ import annotations

import math
import secrets
from pathlib import Path
from typing import Any
from uuid import uuid4

from dpacc_accounting.budget.fingerprint import KEY_BYTES, KEY_SUFFIX, data_fingerprint
from dpacc_accounting.budget.key_file import BudgetError, create_key, write_new
from dpacc_accounting.budget.record import BudgetRecord, opening_to_json
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.ledger.record import START, seal


def create_budget(
    *,
    path: Path | str,
    name: str,
    epsilon: float,
    delta: float,
    adjacency: Adjacency | str = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    data: Path | str | None = None,
    key: Path | str | None = None,
) -> None:
    """Make a budget and its key; both are new, or neither is made.

    Args:
        path: the registry's file, which may be shared: it tells nothing of the rows.
        name: of the data set.
        epsilon: the total ε.
        delta: the total δ, below 1.
        adjacency: which data sets are neighbours; every run's must be the same.
        unit: whose data is protected; every run's must be the same.
        data: the file or folder; without it no run's data is compared.
        key: where its secret is kept; beside the data, or the registry where no data is named.

    Raises:
        ValueError: a setting is out of range, or there is no such data.
        BudgetError: one of both files exists, or the disk refuses.

    >>> import tempfile
    >>> from dpacc_accounting import read_budget
    >>> folder = tempfile.TemporaryDirectory()
    >>> place = Path(folder.name) / "budget.jsonl"
    >>> create_budget(path=place, name="notes", epsilon=3.0, delta=1e-5)
    >>> found = read_budget(path=place)
    >>> found.name, found.epsilon, found.unit, [*found.shares]
    ('notes', 3.0, 'example', [])
    >>> folder.cleanup()
    """
    place, secret = Path(path).expanduser(), secrets.token_bytes(KEY_BYTES)
    record = BudgetRecord(
        budget=uuid4().hex,
        name=_required_words("name", name),
        fingerprint=None if data is None else data_fingerprint(key=secret, data=data),
        epsilon=_required_number("epsilon", epsilon, below=math.inf),
        delta=_required_number("delta", delta, below=1),
        adjacency=Adjacency(adjacency),
        unit=_required_words("unit", unit),
        key=_place_of_key(key=key, beside=place if data is None else data),
    )
    line, head = seal(opening_to_json(record), previous=START)
    if place.exists():
        raise BudgetError(f"{place} exists: use that budget, or name another file")
    create_key(path=record.key, secret=secret, budget=record.budget, head=head)
    try:
        write_new(path=place, data=line)
    except OSError as failure:
        record.key.unlink()
        raise BudgetError(f"cannot write budget {place}: {failure.strerror}") from failure


def _place_of_key(*, key: Path | str | None, beside: Path | str) -> Path:
    if key is not None:
        return Path(key).expanduser().resolve()
    found = Path(beside).expanduser().resolve()
    return found.with_name(found.name + KEY_SUFFIX)


def _required_words(name: str, value: Any) -> str:
    if not (isinstance(value, str) and value.strip() and value.isprintable()):
        raise ValueError(f"{name}={value!r} must be a few printable words")
    return value


def _required_number(name: str, value: Any, *, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < below:
        raise ValueError(f"{name}={value!r} must be a number above 0 and below {below}")
    return float(value)
