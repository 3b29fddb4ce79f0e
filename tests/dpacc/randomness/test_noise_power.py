"""Statistical tests of the noise generator, each shown to find the deviation it is there for.

Each test statistic is compared with a bound that sound noise passes all but 10⁻⁶ of the time. The
power stated is the chance of finding the named deviation; it follows from the statistic's normal
approximation, and a planted deviation of that size is found here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret

Draws = npt.NDArray[np.float64]
COUNT = 1_000_000
BOUND = float(stats.norm.isf(0.5e-6))
"""4.89: a standard normal lies beyond it once in a million."""


def drawn(*, seed: int = 17, step: int = 0, count: int = COUNT) -> Draws:
    secret = RunSecret.from_fixed_seed(seed)
    return standard_normals(secret=secret, step=step, count=count).astype(np.float64)


def mean(noise: Draws) -> float:
    return float(noise.mean() * np.sqrt(len(noise)))


def variance(noise: Draws) -> float:
    return float((noise**2 - 1).mean() * np.sqrt(len(noise) / 2))


def skewness(noise: Draws) -> float:
    return float((noise**3 - 3 * noise).mean() * np.sqrt(len(noise) / 6))


def kurtosis(noise: Draws) -> float:
    return float((noise**4 - 6 * noise**2 + 3).mean() * np.sqrt(len(noise) / 24))


def correlation(first: Draws, second: Draws) -> float:
    return float((first * second).mean() * np.sqrt(len(first)))


def power(shift: float) -> float:
    """The chance that a statistic whose mean lies `shift` standard deviations off is found."""
    return float(stats.norm.sf(BOUND - shift))


def scaled(noise: Draws) -> Draws:
    return noise * 0.994


def moved(noise: Draws) -> Draws:
    return noise + 0.009


def skewed(noise: Draws) -> Draws:
    return noise + 0.004 * (noise**2 - 1)


def heavy_tailed(noise: Draws) -> Draws:
    return (noise + 0.002 * (noise**3 - 3 * noise)) / np.sqrt(1 + 6 * 0.002**2)


@pytest.mark.parametrize(
    ("statistic", "deviate", "shift"),
    [
        (mean, moved, 0.009 * np.sqrt(COUNT)),
        (variance, scaled, (1 - 0.994**2) * np.sqrt(COUNT / 2)),
        (skewness, skewed, 6 * 0.004 * np.sqrt(COUNT / 6)),
        (kurtosis, heavy_tailed, 24 * 0.002 * np.sqrt(COUNT / 24)),
    ],
)
def test_each_moment_is_that_of_a_standard_normal(
    statistic: Callable[[Draws], float], deviate: Callable[[Draws], Draws], shift: float
) -> None:
    """Noise too small by 0.6%, off by 0.009σ, or a little skewed or heavy-tailed: power ≥ 99.9%."""
    assert power(shift) > 0.999
    noise = drawn()
    assert abs(statistic(noise)) < BOUND
    assert abs(statistic(deviate(noise))) > BOUND


def test_steps_are_independent() -> None:
    """All pairs of 8 steps: a correlation of 0.8% between any two is found with 99.9%."""
    assert power(0.008 * np.sqrt(COUNT)) > 0.998
    steps = [drawn(step=step, count=COUNT) for step in range(8)]
    for i, first in enumerate(steps):
        for second in steps[:i]:
            assert abs(correlation(first, second)) < BOUND
    shared = np.sqrt(1 - 0.008**2) * steps[1] + 0.008 * steps[0]
    assert abs(correlation(steps[0], shared)) > BOUND


def test_elements_are_independent_at_every_distance() -> None:
    """The spectrum is flat: a hidden repetition of 2% amplitude at any distance is found.

    Under independence the periodogram's ordinates are exponential, and the largest of n/2 passes
    ln(n/2) + 14 once in a million. An echo at lag L lifts the correlation at L by 0.02, twenty
    standard deviations, which the transform of the periodogram shows for all L at once.
    """
    noise = drawn(count=2**20)
    assert _largest_ordinate(noise) < np.log(len(noise) / 2) + 14
    assert _largest_echo(noise) < _echo_bound(len(noise))
    echo = noise + 0.02 * np.roll(noise, 70_001)
    assert _largest_echo(echo) > _echo_bound(len(noise))
    hum = noise + 0.01 * np.cos(np.arange(len(noise)))
    assert _largest_ordinate(hum) > np.log(len(noise) / 2) + 14


def _periodogram(noise: Draws) -> Draws:
    return np.abs(np.fft.rfft(noise)) ** 2 / len(noise)


def _largest_ordinate(noise: Draws) -> float:
    return float(_periodogram(noise)[1:-1].max())


def _largest_echo(noise: Draws) -> float:
    """The largest correlation with itself at any distance, in standard deviations."""
    echoes = np.fft.irfft(_periodogram(noise))[1 : len(noise) // 2]
    return float(np.abs(echoes).max() * np.sqrt(len(noise)))


def _echo_bound(count: int) -> float:
    return float(stats.norm.isf(0.5e-6 / (count / 2)))


def test_ranks_draw_one_noise_and_runs_their_own() -> None:
    """Ranks share a secret and draw the same bits; other secrets and purposes do not correlate.

    A correlation of 0.8% between runs is found with 99.9%.
    """
    secret = bytes(range(32))
    ranks = [standard_normals(secret=RunSecret(secret), step=4, count=1000) for _ in range(2)]
    assert np.array_equal(*ranks)
    runs = [drawn(seed=seed) for seed in (1, 2, 3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(correlation(runs[one], runs[other])) < BOUND
    stream = RunSecret.from_fixed_seed(1).stream(purpose="sampling", step=0)
    coins = (stream.words(start=0, count=COUNT) >> np.uint64(11)) * 2.0**-53
    assert abs(correlation(runs[0], (coins - 0.5) * np.sqrt(12))) < BOUND


def test_the_first_numbers_of_a_known_key_are_fixed() -> None:
    """Element 0 to 3 of step 7 under the key 00 01 … 1f, written down once: no version may move."""
    found = standard_normals(secret=RunSecret(bytes(range(32))), step=7, count=4)
    assert found.tolist() == pytest.approx(KNOWN, rel=1e-6)


KNOWN = [0.566526174, -1.288841971, -1.406287724, 2.417789863]
