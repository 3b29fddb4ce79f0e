"""A fingerprint knows the same bytes again, and tells nobody without the key anything."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

import pytest
from dpacc_accounting import data_fingerprint, read_budget
from dpacc_accounting.budget.key_file import read_key

from tests.accounting.budget.budgets import ROWS, budget_in, run_of

KEY, OTHER = bytes(32), bytes(31) + b"1"


def test_equal_bytes_are_known_and_others_are_not(tmp_path: Path) -> None:
    """One row more, or another key, gives another digest; a name does not count."""
    one, two, more = (tmp_path / name for name in ("one", "two", "more"))
    one.write_text(ROWS)
    two.write_text(ROWS)
    more.write_text(ROWS + "{}\n")
    found = data_fingerprint(key=KEY, data=one)
    assert found == data_fingerprint(key=KEY, data=two)
    assert found == hmac.new(KEY, ROWS.encode(), sha256).hexdigest()
    assert found != data_fingerprint(key=KEY, data=more)
    assert found != data_fingerprint(key=OTHER, data=one)


def test_a_folder_is_its_files_whatever_they_are_called(tmp_path: Path) -> None:
    """Renamed files are the same data, a changed one is not, and a key among them counts not."""
    (tmp_path / "a.jsonl").write_text("1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.jsonl").write_text("2\n")
    found = data_fingerprint(key=KEY, data=tmp_path)
    (tmp_path / "a.jsonl").rename(tmp_path / "z.jsonl")
    (tmp_path / "z.jsonl.budget-key").write_text("heads\n")
    assert data_fingerprint(key=KEY, data=tmp_path) == found
    (tmp_path / "z.jsonl").write_text("3\n")
    assert data_fingerprint(key=KEY, data=tmp_path) != found


def test_the_registry_tells_nothing_of_the_rows(tmp_path: Path) -> None:
    """Neither a row, nor a digest that a guess at the rows could be held against."""
    budget = budget_in(tmp_path)
    run_of(budget, "one")
    record = read_budget(path=budget.path)
    told = budget.path.read_text()
    secret = read_key(path=record.key).secret
    assert "Ann" not in told
    assert secret.hex() not in told
    for guess in (ROWS, *ROWS.splitlines()):
        assert sha256(guess.encode()).hexdigest() not in told
        assert hmac.new(b"", guess.encode(), sha256).hexdigest() not in told
    assert record.fingerprint == data_fingerprint(key=secret, data=tmp_path / "train.jsonl")


def test_two_budgets_of_the_same_rows_cannot_be_linked(tmp_path: Path) -> None:
    """Each has a key of its own, so that equal data shows nothing alike."""
    found = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        found.add(budget_in(tmp_path / name).read().fingerprint)
    assert len(found) == 2


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file is one line."""
    with pytest.raises(ValueError, match=r"cannot read the data .*absent"):
        data_fingerprint(key=KEY, data=tmp_path / "absent")
