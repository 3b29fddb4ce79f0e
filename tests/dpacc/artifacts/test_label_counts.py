"""Counts of private labels: one vote a unit, exact noise, and no count that was not charged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import DiscreteGaussian, Ledger, read_ledger
from dpacc_accounting.ledger.record import LedgerError
from hypothesis import given
from hypothesis import strategies as st

from dpacc.artifacts.synthetic.card import price_of
from dpacc.artifacts.synthetic.label_counts import read_counts, release_counts, votes_of
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret

PLAN = {"unit": "example", "target_delta": 1e-3, "dataset_size": 40}


@given(
    st.lists(st.tuples(st.sampled_from("abcx"), st.integers(0, 4)), max_size=12),
    st.integers(0, 4),
)
def test_a_unit_moves_one_count_by_one(records: list[tuple[str, int]], gone: int) -> None:
    """Whatever its records are, and whoever else is there: of neighbours one vote differs at most,
    also where one person wrote all records of a label.
    """

    def votes(rows: list[tuple[str, int]]) -> Any:
        labels, owners = [label for label, _ in rows], [owner for _, owner in rows]
        return np.array([*votes_of(labels=labels, owners=owners, known="abc").values()])

    moved = votes(records) - votes([row for row in records if row[1] != gone])
    assert moved.sum() == abs(moved).sum() <= 1


def test_an_example_is_its_own_unit_without_owners() -> None:
    """Each has its vote; labels that nobody named in public have none."""
    votes = votes_of(labels=[*"aabxx"], owners=None, known=["b", "a", "c"])
    assert votes == {"b": 1, "a": 2, "c": 0}


def test_every_count_has_noise_of_its_own(tmp_path: Path) -> None:
    """Of 4,000 counts the noise is whole, independent and of the standard deviation that is
    charged, and a second release draws anew.
    """
    votes = {str(at): 50 for at in range(4_000)}
    first, second = (
        np.array(
            [*release_counts(votes=votes, noise=7, folder=tmp_path / n, settings=PLAN).values()]
        )
        for n in "ab"
    )
    assert (first - 50).std() == pytest.approx(7, rel=0.06)
    assert abs((first - 50).mean()) < 0.6
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08
    record = read_ledger(path=tmp_path / "a/ledger.jsonl")
    assert [each.event for each in record.releases] == [DiscreteGaussian(sigma=7, sensitivity=1)]


def test_nothing_is_released_that_the_disk_did_not_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the charge fails, no count is drawn and no file is written."""

    def full(*_: object, **__: object) -> None:
        raise LedgerError("disk full")

    monkeypatch.setattr(Ledger, "charge", full)
    with pytest.raises(LedgerError):
        release_counts(votes={"a": 3}, noise=2, folder=tmp_path / "new", settings=PLAN)
    assert not (tmp_path / "new/label_counts.json").exists()


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., Path]:
    """A folder of counts, with some settings changed."""

    def made(noise: int = 2, votes: int = 50, **changes: Any) -> Path:
        secret = changes.pop("secret", None)
        release_counts(
            votes={"a": votes, "b": 2 * votes},
            noise=noise,
            folder=tmp_path / "counts",
            settings=PLAN | changes,
            secret=secret,
        )
        return tmp_path / "counts"

    return made


def test_counts_are_read_with_the_ledger_that_paid_for_them(
    released: Callable[..., Path],
) -> None:
    """Other counts, or none, are refused: nobody knows what those cost."""
    folder = released()
    counts, record = read_counts(folder=folder)
    assert counts.keys() == {"a", "b"}
    assert len(record.releases) == 1
    path = folder / "label_counts.json"
    exact = json.loads(path.read_text()) | {"counts": {"a": 50, "b": 100}}
    path.write_text(json.dumps(exact))
    with pytest.raises(ConfigurationError, match="not the counts that its ledger was charged for"):
        read_counts(folder=folder)
    path.unlink()
    with pytest.raises(ConfigurationError, match="make them with"):
        read_counts(folder=folder)


def test_counts_without_any_above_zero_are_refused(released: Callable[..., Path]) -> None:
    """All noise and no shares."""
    with pytest.raises(ConfigurationError, match="give a public distribution instead"):
        read_counts(folder=released(votes=-1_000))


def training(path: Path, **changes: Any) -> Any:
    plan = PrivacyPlan(
        dataset_size=40,
        expected_batch_size=10,
        steps=4,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-3,
        **changes,
    )
    with Ledger.open(path=path, plan=plan.to_json()) as book:
        for step in range(4):
            book.charge(step=step, event=plan.charge(step))
    return read_ledger(path=path), plan


def test_what_is_written_is_priced_by_both_releases(
    released: Callable[..., Path], tmp_path: Path
) -> None:
    """More than the training alone, less than both ε added, at the training's δ."""
    record, plan = training(tmp_path / "ledger.jsonl")
    _, counted = read_counts(folder=released(target_delta=1e-9))
    alone, both = (price_of(record=record, counted=each) for each in (None, counted))
    assert alone.epsilon == pytest.approx(plan.guarantee().epsilon)
    assert alone.epsilon + 0.1 < both.epsilon
    assert both.delta == 1e-3
    apart = read_counts(folder=tmp_path / "counts")[1].event
    assert both.epsilon < alone.epsilon + _epsilon(apart)


def _epsilon(event: Any) -> float:
    from dpacc_accounting import epsilon

    return epsilon(event=event, delta=1e-3).epsilon


def test_units_that_differ_have_no_price_together(
    released: Callable[..., Path], tmp_path: Path
) -> None:
    """Counts of examples beside a training that protects authors."""
    record, _ = training(tmp_path / "ledger.jsonl", unit="author")
    _, counted = read_counts(folder=released())
    with pytest.raises(LedgerError, match="differ in unit"):
        price_of(record=record, counted=counted)


def test_noise_from_a_fixed_seed_voids_the_price(
    released: Callable[..., Path], tmp_path: Path
) -> None:
    """Counts that anybody can recompute leave no ε for what rests on them."""
    record, _ = training(tmp_path / "ledger.jsonl")
    _, counted = read_counts(folder=released(secret=RunSecret.from_fixed_seed(3)))
    price = price_of(record=record, counted=counted)
    assert price.epsilon == float("inf")
    assert "fixed seed 3" in str(price.void_because)
