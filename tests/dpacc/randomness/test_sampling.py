"""Poisson sampling: every example by its own coin, the same on every rank."""

from __future__ import annotations

import numpy as np
from scipy import stats

from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import PoissonSampler

STEPS, SIZE, EXPECTED = 2000, 300, 20


def draws(seed: int = 5) -> list[np.ndarray]:
    sampler = PoissonSampler(
        dataset_size=SIZE, expected_batch_size=EXPECTED, secret=RunSecret.from_fixed_seed(seed)
    )
    return [sampler.draw(step=t) for t in range(STEPS)]


def test_batch_sizes_are_binomial() -> None:
    """Sizes have mean qN and variance Nq(1−q); a shuffled loader's would have variance 0."""
    sizes = np.array([len(draw) for draw in draws()])
    q = EXPECTED / SIZE
    assert abs(sizes.mean() - EXPECTED) < 4 * np.sqrt(SIZE * q * (1 - q) / STEPS)
    chi_square = (STEPS - 1) * sizes.var(ddof=1) / (SIZE * q * (1 - q))
    assert 1e-4 < stats.chi2(STEPS - 1).cdf(chi_square) < 1 - 1e-4


def test_examples_join_equally_often_and_independently() -> None:
    """No example is favoured, and neighbours' coins are uncorrelated."""
    joined = np.zeros((STEPS, SIZE))
    for step, draw in enumerate(draws()):
        joined[step, draw] = 1
    q = EXPECTED / SIZE
    counts = joined.sum(axis=0)
    assert stats.chisquare(counts, np.full(SIZE, counts.mean())).pvalue > 1e-4
    assert abs(counts.mean() - q * STEPS) < 4 * np.sqrt(q * STEPS / SIZE)
    assert abs(np.corrcoef(joined[:, :-1].ravel(), joined[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(joined[:-1].ravel(), joined[1:].ravel())[0, 1]) < 0.01


def test_every_rank_draws_the_same() -> None:
    """The draw is a function of the secret and the step, so ranks need not communicate."""
    assert all(np.array_equal(a, b) for a, b in zip(draws(), draws(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(draws(5), draws(6), strict=True))


def test_a_small_probability_gives_empty_draws() -> None:
    """With q = 1/N over a third of the draws are empty; they are returned as such."""
    sampler = PoissonSampler(
        dataset_size=100, expected_batch_size=1, secret=RunSecret.from_fixed_seed(0)
    )
    empty = sum(len(sampler.draw(step=t)) == 0 for t in range(1000))
    assert 300 < empty < 440
