"""Sums that do not depend on the order of their terms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation import exact_sum
from dpacc.federated.aggregation.averaging import PlainMean
from dpacc.federated.aggregation.central_noise import ClippedSum
from dpacc.federated.aggregation.exact_sum import ExactSum


def terms(count: int, width: int, *, least: float) -> np.ndarray:
    """fp32 numbers of all sizes from `least` to 10⁶, of both signs."""
    draw = np.random.default_rng(0)
    sizes = np.exp(draw.uniform(np.log(least), np.log(1e6), (count, width)))
    return np.asarray(sizes * draw.choice([-1, 1], (count, width)), dtype=np.float32)


def total_of(rows: np.ndarray) -> np.ndarray:
    found = ExactSum(rows.shape[1])
    for row in rows:
        found.add(row)
    return found.total()


def test_the_sum_is_the_exact_one_rounded_once() -> None:
    """Against fractions, of fp32 numbers from 2⁻³² to 10⁶, whose float64 sums are not exact."""
    rows = terms(40, 50, least=2.0**-32)
    exact = [sum(Fraction(float(x)) for x in column) for column in rows.T]
    found = total_of(rows)
    assert found.tolist() == [float(each) for each in exact]
    assert found.tolist() != np.sum(rows, axis=0, dtype=np.float64).tolist()


def test_no_order_changes_a_bit() -> None:
    """Numbers down to 10⁻³⁰, more than fit a chunk, in three orders."""
    rows = terms(12, 40_000, least=1e-30)
    first = total_of(rows)
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(len(rows))
        assert np.array_equal(total_of(rows[order]), first)
    assert np.abs(first - np.sum(rows, axis=0, dtype=np.float64)).max() < 1e-9


def test_the_largest_sums_are_exact() -> None:
    """65,536 terms of nearly 2²⁰ each, with all of their bits; one more is refused."""
    found = ExactSum(1)
    term = np.array([2.0**20 - 2.0**-4 + 2.0**-30])
    for _ in range(exact_sum.MOST_TERMS):
        found.add(term)
    assert found.total()[0] == float(Fraction(term[0]) * 65536)
    with pytest.raises(ConfigurationError, match="as term 65537"):
        found.add(term)


@pytest.mark.parametrize("wrong", [[1.0], [1.0, np.nan], [1.0, np.inf], [1.0, -(2.0**21)]])
def test_what_cannot_be_added_changes_nothing(wrong: list[float]) -> None:
    """Another length, and numbers that are too large or none."""
    found = ExactSum(2)
    found.add(np.array([1.0, 2.0]))
    with pytest.raises(ConfigurationError):
        found.add(np.array(wrong))
    assert found.total().tolist() == [1.0, 2.0]
    assert found.terms == 1


def test_averages_of_clients_do_not_depend_on_who_is_faster() -> None:
    """The plain mean, and the sum of clipped updates, to the last bit."""
    rows = terms(9, 300, least=1e-9) / np.float32(1e5)
    start = {"B": np.zeros(300, np.float32)}
    found = []
    for order in (range(9), range(8, -1, -1)):
        plain = PlainMean().begin(start)
        clipped = ClippedSum(start=start, most=0.7, release=lambda before, total, n: total / n)
        for node in order:
            plain.add(node, {"B": rows[node]})
            clipped.add(node, {"B": rows[node]})
        found.append([each.aggregate({}).arrays["B"] for each in (plain, clipped)])
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    scale = np.minimum(1, 0.7 / np.linalg.norm(rows.astype(np.float64), axis=1))
    expected = (rows * scale[:, None]).mean(0)
    assert np.allclose(found[0][1], expected, rtol=1e-6, atol=1e-12)
