"""Ledgers of several runs on the same data add up by composition, or are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import (
    Composed,
    Gaussian,
    Ledger,
    LedgerError,
    LedgerRecord,
    PoissonSampled,
    Repeated,
    epsilon,
    merge_ledgers,
    read_ledger,
)

from tests.accounting.ledger.ledgers import PLAN, STEP

QUIET = PoissonSampled(probability=0.02, event=Gaussian(noise_multiplier=1.5))


def _record(path: Path, *, event: Any = STEP, steps: int = 20, **plan: Any) -> LedgerRecord:
    with Ledger.open(path=path, plan=PLAN | plan) as ledger:
        for step in range(steps):
            ledger.charge(step=step, event=event)
    return read_ledger(path=path)


@pytest.fixture
def records(tmp_path: Path) -> dict[str, LedgerRecord]:
    """Two runs with different steps."""
    return {
        "a": _record(tmp_path / "a.jsonl"),
        "b": _record(tmp_path / "b.jsonl", event=QUIET, steps=300, target_delta=1e-6),
    }


def test_all_releases_are_composed(records: dict[str, LedgerRecord]) -> None:
    """The total is that of both runs' steps at the smaller δ: more than either, less than both."""
    found = merge_ledgers(records=records)
    every = Composed(events=(Repeated(event=STEP, times=20), Repeated(event=QUIET, times=300)))
    assert found.together == epsilon(event=every, delta=1e-6)
    parts = [part.epsilon for part in found.parts.values() if part]
    assert len(parts) == 2
    assert max(parts) < found.together.epsilon < sum(parts)


def test_delta_can_be_chosen(records: dict[str, LedgerRecord]) -> None:
    """Every ε is stated at the δ that is asked for."""
    found = merge_ledgers(records=records, delta=1e-3)
    assert {part.delta for part in (*found.parts.values(), found.together) if part} == {1e-3}


def test_the_order_does_not_matter(records: dict[str, LedgerRecord]) -> None:
    """Merging b with a costs what merging a with b costs."""
    back = merge_ledgers(records=dict(reversed(records.items())))
    assert back.together == merge_ledgers(records=records).together


def test_one_ledger_is_itself(records: dict[str, LedgerRecord]) -> None:
    """A single ledger's total is its own guarantee."""
    found = merge_ledgers(records={"a": records["a"]})
    assert found.together == found.parts["a"]


def _go_on(path: Path, *, start: int, steps: int) -> LedgerRecord:
    with Ledger.open(path=path, plan=PLAN) as ledger:
        for step in range(start, start + steps):
            ledger.charge(step=step, event=STEP)
    return read_ledger(path=path)


def test_a_mere_copy_counts_once(records: dict[str, LedgerRecord], tmp_path: Path) -> None:
    """A copy of a ledger, even an older one, adds nothing, and the reader is told."""
    whole = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "older.jsonl").write_bytes(b"".join(whole[:-5]))
    older = read_ledger(path=tmp_path / "older.jsonl")
    found = merge_ledgers(records=records | {"older": older})
    assert found.together == merge_ledgers(records=records).together
    (remark,) = found.remarks
    assert "15 common releases are counted once, 5 only in a, 0 only in older" in remark


def test_copies_that_both_went_on_are_both_counted(tmp_path: Path) -> None:
    """What the copies share was released once, and each one's own steps besides."""
    _record(tmp_path / "a.jsonl", steps=20)
    (tmp_path / "b.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    a = _go_on(tmp_path / "a.jsonl", start=20, steps=30)
    b = _go_on(tmp_path / "b.jsonl", start=20, steps=30)
    found = merge_ledgers(records={"a": a, "b": b})
    assert found.together == epsilon(event=Repeated(event=STEP, times=80), delta=1e-5)
    assert found.parts["a"] == found.parts["b"] == epsilon(event=a.event, delta=1e-5)
    (remark,) = found.remarks
    assert "20 common releases are counted once, 30 only in a, 30 only in b" in remark


def test_a_restored_ledger_that_went_on_is_both_counted(tmp_path: Path) -> None:
    """A ledger shortened to a backup and gone on with has lines of its own from there."""
    path = tmp_path / "a.jsonl"
    _record(path, steps=20)
    backup = path.read_bytes()
    ahead = _go_on(path, start=20, steps=10)
    path.write_bytes(backup)
    restored = _go_on(path, start=20, steps=5)
    found = merge_ledgers(records={"ahead": ahead, "restored": restored})
    assert found.together == epsilon(event=Repeated(event=STEP, times=35), delta=1e-5)


def test_old_ledgers_of_one_run_are_counted_in_full(tmp_path: Path) -> None:
    """Without session lines equal lines may be two releases: all are counted, and it is said."""
    a = replace(_record(tmp_path / "a.jsonl", steps=20), version=1)
    found = merge_ledgers(records={"a": a, "copy": a})
    assert found.together == epsilon(event=Repeated(event=STEP, times=40), delta=1e-5)
    assert "every release of each is counted" in found.remarks[0]


def test_notes_of_every_run_qualify_the_total(
    records: dict[str, LedgerRecord], tmp_path: Path
) -> None:
    """What one run logged without noise is told beside the total, with its ledger's name."""
    with Ledger.open(path=tmp_path / "a.jsonl", plan=PLAN) as ledger:
        ledger.note(subject="non-private-metrics", text="losses were logged")
    noted = records | {"a": read_ledger(path=tmp_path / "a.jsonl")}
    together = merge_ledgers(records=noted).together
    assert together is not None
    assert together.qualified_by == ("a: losses were logged",)


@pytest.mark.parametrize(("setting", "value"), [("adjacency", "replace-one"), ("unit", "patient")])
def test_guarantees_of_other_neighbours_do_not_add_up(
    records: dict[str, LedgerRecord], tmp_path: Path, setting: str, value: str
) -> None:
    """Ledgers with another adjacency or unit are refused, with both values."""
    other = _record(tmp_path / "c.jsonl", **{setting: value})
    with pytest.raises(LedgerError, match=f"differ in {setting}.*{value}"):
        merge_ledgers(records=records | {"c": other})


def test_one_void_run_voids_the_total(records: dict[str, LedgerRecord], tmp_path: Path) -> None:
    """A fixed seed in one run leaves no ε for the total, and its ledger is named."""
    with Ledger.open(path=tmp_path / "a.jsonl", plan=PLAN) as ledger:
        ledger.note(subject="fixed-seed", text="the noise came from seed 7")
    found = merge_ledgers(records=records | {"a": read_ledger(path=tmp_path / "a.jsonl")})
    assert found.together is None
    assert found.faults == ("a: the noise came from seed 7",)
    assert found.parts["b"] is not None


def test_differing_sizes_are_remarked_on(records: dict[str, LedgerRecord], tmp_path: Path) -> None:
    """Runs on datasets of different sizes are composed, and the reader is told."""
    assert merge_ledgers(records=records).remarks == ()
    other = _record(tmp_path / "c.jsonl", dataset_size=500)
    (remark,) = merge_ledgers(records=records | {"c": other}).remarks
    assert "c: 500" in remark


def test_nothing_is_no_ledger() -> None:
    """Merging no ledgers is refused."""
    with pytest.raises(LedgerError, match="no ledger was given"):
        merge_ledgers(records={})
