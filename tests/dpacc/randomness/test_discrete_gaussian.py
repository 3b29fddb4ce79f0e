"""The discrete noise: its law, exact decisions, and the key."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpacc.randomness import discrete_gaussian
from dpacc.randomness.discrete_gaussian import LARGEST_SCALE, discrete_gaussians
from dpacc.randomness.run_secret import RunSecret

SECRET = RunSecret.from_fixed_seed(11)


def drawn(scale: int, count: int, *, step: int = 0, purpose: str = "noise") -> np.ndarray:
    return discrete_gaussians(secret=SECRET, step=step, purpose=purpose, scale=scale, count=count)


@pytest.mark.parametrize("scale", [1, 2, 7, 40])
def test_the_law_is_the_discrete_gaussian(scale: int) -> None:
    """Chi-square over every integer that is not rare: chances ∝ e^(−k²/2σ²), and no others."""
    count = 400_000
    sample = drawn(scale, count)
    k = np.arange(-8 * scale, 8 * scale + 1)
    assert np.abs(sample).max() <= 8 * scale
    chances = np.exp(-(k**2) / (2 * scale**2))
    expected = count * chances / chances.sum()
    seen = np.bincount(sample + 8 * scale, minlength=len(k))
    common = expected > 20
    square = ((seen - expected)[common] ** 2 / expected[common]).sum()
    assert common.sum() >= 6 * scale
    assert stats.chi2.sf(square, common.sum()) > 1e-3


def test_large_scales_are_normal_and_reach_the_lowest_digit() -> None:
    """Kolmogorov–Smirnov at σ = 2²⁶; the last bit is fair, so no draw is a multiple of anything."""
    sample = drawn(1 << 26, 500_000)
    assert stats.kstest(sample / 2.0**26, "norm").pvalue > 1e-3
    for bit in range(8):
        share = ((sample >> bit) & 1).mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(sample))


@pytest.mark.parametrize("scale", [1, 10, 1 << 26, LARGEST_SCALE])
def test_doubles_decide_only_what_exact_arithmetic_decides_alike(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With doubles doubted everywhere, every draw is decided with exact digits: the same draws."""
    monkeypatch.setattr(discrete_gaussian, "_CHUNK", 400)
    usual = drawn(scale, 400)
    decided = []
    original = discrete_gaussian._settle
    monkeypatch.setattr(
        discrete_gaussian, "_settle", lambda *known: decided.append(1) or original(*known)
    )
    monkeypatch.setattr(discrete_gaussian, "_DOUBT", 1.0)
    assert np.array_equal(drawn(scale, 400), usual)
    assert len(decided) > 800


def test_decisions_in_doubt_read_more_digits() -> None:
    """A uniform number whose first digits fit both answers is read on until it fits one."""
    source = discrete_gaussian._Source(secret=SECRET, step=0, purpose="noise/0")
    lengths = []

    def undecided_at_first(low: object, high: object) -> int | None:
        lengths.append(1)
        return 7 if len(lengths) == 3 else None

    assert discrete_gaussian._settle(undecided_at_first, source, 5, 63, 2) == 7
    digits = [source.more_digits(2, words) for words in (1, 2)]
    assert digits[1] >> 64 == digits[0] < 1 << 64
    assert source.more_digits(3, 1) != digits[0]


def test_element_i_depends_on_the_key_and_i_alone() -> None:
    """Drawing more changes no element already drawn; other steps and purposes give others."""
    long = drawn(100, 70_000)
    for count in (0, 1, 32_767, 32_769):
        assert np.array_equal(drawn(100, count), long[:count])
    for other in (drawn(100, 70_000, step=1), drawn(100, 70_000, purpose="count noise")):
        assert abs(np.corrcoef(long, other)[0, 1]) < 4 / np.sqrt(len(long))
    assert abs(np.corrcoef(long, np.roll(long, 1 << 15))[0, 1]) < 4 / np.sqrt(len(long))


@pytest.mark.parametrize("scale", [0, -1, LARGEST_SCALE + 1])
def test_scales_that_cannot_be_drawn_are_refused(scale: int) -> None:
    """No noise, and more than doubles can propose, are named."""
    with pytest.raises(ValueError, match=f"scale={scale}"):
        drawn(scale, 1)


def test_any_number_of_threads_draws_the_same_noise() -> None:
    """Each chunk has words and digits of its own, so it does not matter who draws it."""
    count = 3 * discrete_gaussian._CHUNK + 5
    together = discrete_gaussians(
        secret=SECRET, step=2, purpose="noise", scale=10, count=count, threads=3
    )
    assert np.array_equal(together, drawn(10, count, step=2))
