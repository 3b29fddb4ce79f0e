"""Robust rules number by number and by inner products, against brute force."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum

from dpacc.federated.aggregation import robust_rules
from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.aggregation.robust import Defence, defended
from dpacc.federated.aggregation.robust_rules import (
    bulyan,
    extreme_shares,
    krum,
    median,
    median_cosines,
    trimmed_mean,
)


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is taken some columns at a time is put together again."""
    monkeypatch.setattr(robust_rules, "_BLOCK", 128)


def rows(count: int, *, width: int = 90, equal: bool = False) -> np.ndarray:
    draw = np.random.default_rng(count)
    return draw.integers(0, 4, (count, width)) / 3 if equal else draw.normal(size=(count, width))


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("count", [3, 4, 7, 8])
def test_cosines_are_with_the_median_of_all_others(count: int, equal: bool) -> None:
    """A fresh median for each row finds the same, also where numbers are equal."""
    moved = rows(count, equal=equal)
    for at, found in enumerate(median_cosines(moved)):
        others = np.median(np.delete(moved, at, axis=0), axis=0)
        expected = others @ moved[at] / np.linalg.norm(others) / np.linalg.norm(moved[at])
        assert found == pytest.approx(expected, rel=1e-12)


def test_a_row_or_a_median_of_zeros_has_no_angle() -> None:
    """It points against nobody."""
    assert median_cosines(np.zeros((4, 5))).tolist() == [0.0] * 4


@pytest.mark.parametrize(("count", "hostile"), [(5, 1), (9, 3), (20, 4)])
def test_rules_find_what_flowers_find(count: int, hostile: int) -> None:
    """Krum's and Bulyan's choice, and every mean, on rows of which some are shifted."""
    moved = rows(count)
    moved[:hostile] += 2.0
    gram = moved @ moved.T
    records = [RecordDict({"arrays": ArrayRecord({"moved": Array(each)})}) for each in moved]
    for keep in (1, count - hostile):
        chosen = select_multikrum(records, hostile, keep)
        theirs = [at for at, each in enumerate(records) if any(each is one for one in chosen)]
        assert krum(gram, hostile=hostile, keep=keep) == theirs
    assert np.allclose(median(moved), np.median(moved, axis=0), rtol=1e-12)
    share = (hostile + 0.5) / count
    assert np.allclose(trimmed_mean(moved, hostile=hostile), trim_mean(moved, share), rtol=1e-9)
    if count >= 4 * hostile + 1:
        means, selected = bulyan(moved, gram, hostile=hostile)
        middle = np.median(moved[selected], axis=0)
        near = max(1, count - 4 * hostile)
        (reference,) = aggregate_n_closest_weights([middle], [[moved[k]] for k in selected], near)
        assert np.allclose(means, reference, rtol=1e-9)


def test_equal_numbers_make_nobody_extreme() -> None:
    """Where most clients left a number alone, none of them is called the largest or smallest."""
    moved = np.zeros((9, 100))
    moved[3, :60] = 5.0
    shares = extreme_shares(moved, hostile=2)
    assert shares[3] == 0.6
    assert np.delete(shares, 3).max() == 0.0


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "bulyan"])
def test_memory_beside_the_updates_is_one_copy_of_them(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differences in float64, and nothing else that grows with clients times numbers."""
    monkeypatch.undo()
    monkeypatch.setattr(robust_rules, "_BLOCK", 4096)
    count, width = 40, 20_000
    updates = {
        str(at): {"B": row.astype(np.float32)} for at, row in enumerate(rows(count, width=width))
    }
    rule_of = defended(Defence(rule=rule, attackers=2), ffa)  # type: ignore[arg-type]
    tracemalloc.start()
    rule_of({"B": np.zeros(width, np.float32)}, updates)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * count * width * 8
