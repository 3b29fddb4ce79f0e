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


def in_turns(seed: int = 5, groups: int = 4) -> PoissonSampler:
    return PoissonSampler(
        dataset_size=SIZE,
        expected_batch_size=EXPECTED,
        secret=RunSecret.from_fixed_seed(seed),
        groups=groups,
    )


def test_examples_join_in_their_groups_turn_alone() -> None:
    """Each has one turn in four steps; its group is fair, and the rest of its coins are."""
    sampler, turn = in_turns(), {}
    joined = np.zeros(SIZE)
    for step in range(STEPS):
        for example in sampler.draw(step=step).tolist():
            assert turn.setdefault(example, step % 4) == step % 4
            joined[example] += 1
    sizes = np.bincount([*turn.values()], minlength=4)
    assert len(turn) == SIZE
    assert stats.chisquare(sizes).pvalue > 1e-4
    chance = 4 * EXPECTED / SIZE
    spread = np.square(joined - chance * STEPS / 4).sum() / (STEPS / 4 * chance * (1 - chance))
    assert 1e-4 < stats.chi2(SIZE).cdf(spread) < 1 - 1e-4


def test_other_secrets_draw_other_groups() -> None:
    """Whoever knows the settings does not know whose turn it is."""
    everyone = PoissonSampler(
        dataset_size=SIZE,
        expected_batch_size=SIZE // 4,
        secret=RunSecret.from_fixed_seed(6),
        groups=4,
    )
    assert everyone.probability == 1
    mine, theirs = set(in_turns(5, 15).draw(step=0)), set(in_turns(6, 15).draw(step=0))
    assert mine
    assert theirs
    assert mine != theirs
    drawn = [everyone.draw(step=step) for step in range(4)]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(SIZE))


def test_an_examples_group_depends_on_its_own_place_alone() -> None:
    """Fewer examples after it change no one's turn."""
    fewer = PoissonSampler(
        dataset_size=100, expected_batch_size=25, secret=RunSecret.from_fixed_seed(5), groups=4
    )
    more = PoissonSampler(
        dataset_size=200, expected_batch_size=50, secret=RunSecret.from_fixed_seed(5), groups=4
    )
    for step in range(4):
        assert (fewer.draw(step=step) == [i for i in more.draw(step=step) if i < 100]).all()
