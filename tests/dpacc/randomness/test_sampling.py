"""Every example by its own coin or word, the same on every rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import AllocatedSampler, PoissonSampler, sampler_for

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


def allocated(seed: int = 5, *, size: int = SIZE, steps: int = 16) -> AllocatedSampler:
    return AllocatedSampler(
        dataset_size=size, steps_an_epoch=steps, secret=RunSecret.from_fixed_seed(seed)
    )


def test_every_example_is_in_exactly_one_step_of_each_epoch() -> None:
    """Sixteen draws hold everybody once, epoch after epoch, and sizes differ."""
    sampler, sizes = allocated(), []
    for epoch in range(20):
        drawn = [sampler.draw(step=16 * epoch + place) for place in range(16)]
        assert sorted(np.concatenate(drawn).tolist()) == list(range(SIZE))
        assert all((np.diff(draw) > 0).all() for draw in drawn)
        sizes += [len(draw) for draw in drawn]
    assert np.var(sizes) == pytest.approx(SIZE / 16 * 15 / 16, rel=0.3)


@pytest.mark.parametrize("steps", [3, 16, 37])
def test_an_examples_step_is_uniform_over_secrets_and_epochs(steps: int) -> None:
    """One example over 3,000 secrets, and over 3,000 epochs of one secret: chi-square."""
    by_secret = [
        int(allocated(seed, size=2, steps=steps).places(epoch=0)[1]) for seed in range(3000)
    ]
    one = allocated(size=2, steps=steps)
    by_epoch = [int(one.places(epoch=epoch)[1]) for epoch in range(3000)]
    for places in (by_secret, by_epoch):
        assert stats.chisquare(np.bincount(places, minlength=steps)).pvalue > 1e-4


def test_examples_and_epochs_are_allocated_independently() -> None:
    """Neighbours share a step, and consecutive epochs a place, as often as chance has it."""
    sampler = allocated()
    places = np.array([sampler.places(epoch=epoch) for epoch in range(400)])
    for equal in (places[:, 1:] == places[:, :-1], places[1:] == places[:-1]):
        chance = 1 / 16
        error = math.sqrt(chance * (1 - chance) / equal.size)
        assert abs(equal.mean() - chance) < 4 * error


def test_an_examples_step_depends_on_its_own_place_alone() -> None:
    """More examples after it move no one; every rank draws alike, other secrets do not."""
    fewer, more = allocated(size=100), allocated(size=300)
    for step in range(32):
        assert (fewer.draw(step=step) == [i for i in more.draw(step=step) if i < 100]).all()
        assert (allocated().draw(step=step) == allocated().draw(step=step)).all()
    assert (allocated(5).places(epoch=0) != allocated(6).places(epoch=0)).mean() > 0.5


def test_no_step_is_likelier_than_the_bound_says() -> None:
    """Of all words, as of all 8-bit ones: a step has at most one more than its share."""
    assert max(np.bincount(np.arange(256) % 37)) / 256 <= (1 + 37 / 256) / 37


def test_a_plan_that_allocates_draws_its_epochs() -> None:
    """⌈N/B⌉ steps an epoch, and no sampler of another kind."""
    plan = PrivacyPlan(
        dataset_size=100,
        expected_batch_size=30,
        steps=10,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-3,
        sampling="allocated",
    )
    sampler = sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(1))
    assert isinstance(sampler, AllocatedSampler)
    assert (sampler.steps_an_epoch, sampler.dataset_size) == (4, 100)
    assert plan.sampling_probability == 1 / 4
    assert not sampler.turns().any()
