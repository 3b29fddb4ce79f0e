"""The doctor's tests tell Poisson from its imitations, and the right noise from wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpacc.doctor.statistics import (
    allocation_finding,
    draws_finding,
    noise_finding,
    sampling_finding,
)
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import AllocatedSampler, PoissonSampler, sampler_for

SIZE, BATCH, STEPS = 1000, 50, 200


def poisson(seed: int, batch: int = BATCH, size: int = SIZE) -> list[np.ndarray]:
    sampler = PoissonSampler(
        dataset_size=size, expected_batch_size=batch, secret=RunSecret.from_fixed_seed(seed)
    )
    return [sampler.draw(step=step) for step in range(STEPS)]


def shuffled(rng: np.random.Generator) -> list[np.ndarray]:
    epochs = [rng.permutation(SIZE).reshape(-1, BATCH) for _ in range(STEPS * BATCH // SIZE)]
    return list(np.concatenate(epochs))


def healthy(draws: list[np.ndarray], *, batch: int = BATCH, size: int = SIZE) -> bool:
    return sampling_finding(draws=draws, dataset_size=size, probability=batch / size).healthy


@pytest.mark.parametrize(("batch", "size"), [(50, 1000), (1, 30_000), (290, 300), (8, 8)])
def test_poisson_draws_pass_whatever_their_rate(batch: int, size: int) -> None:
    """Thirty seeds each, from one expected example to all: no false alarm."""
    for seed in range(30):
        assert healthy(poisson(seed, batch, size), batch=batch, size=size)


def test_imitations_of_poisson_are_told_apart() -> None:
    """Shuffled epochs, fixed sizes, another rate, the same draw every step, missing examples."""
    rng = np.random.default_rng(0)
    fixed = [rng.choice(SIZE, size=BATCH, replace=False) for _ in range(STEPS)]
    half = [draw[draw < SIZE // 2] for draw in poisson(0, 2 * BATCH)]
    assert not healthy(shuffled(rng))
    assert not healthy(fixed)
    assert not healthy(poisson(0, 60))
    assert not healthy([poisson(0)[0]] * STEPS)
    assert not healthy(half)
    assert not healthy([np.arange(7)] * 3, batch=8, size=8)


def test_only_the_right_noise_passes() -> None:
    """2% too little, uniform noise of the right scale, and noise that is used twice are found."""
    rng = np.random.default_rng(1)
    noise = 0.3 * rng.standard_normal((10, 20_000))
    uniform = 0.3 * np.sqrt(12) * (rng.random((10, 20_000)) - 0.5)
    repeated = np.repeat(noise[:5], 2, axis=0)
    assert noise_finding(noise=noise, standard_deviation=0.3).healthy
    assert not noise_finding(noise=0.98 * noise, standard_deviation=0.3).healthy
    assert not noise_finding(noise=uniform, standard_deviation=0.3).healthy
    assert noise_finding(noise=uniform, standard_deviation=0.3, gaussian=False).healthy
    found = noise_finding(noise=repeated, standard_deviation=0.3)
    assert not found.healthy
    assert "steps' independence" in found.words


def epochs(seed: int, size: int, steps: int, number: int = 12) -> list[np.ndarray]:
    sampler = AllocatedSampler(
        dataset_size=size, steps_an_epoch=steps, secret=RunSecret.from_fixed_seed(seed)
    )
    return [sampler.draw(step=step) for step in range(steps * number)]


def allocated(draws: list[np.ndarray], size: int, steps: int) -> bool:
    return allocation_finding(draws=draws, dataset_size=size, steps_an_epoch=steps).healthy


@pytest.mark.parametrize(("size", "steps"), [(1000, 20), (300, 300), (300, 2), (8, 1), (1, 1)])
def test_allocated_draws_pass_whatever_their_epochs(size: int, steps: int) -> None:
    """Thirty seeds each, from one step an epoch to one for each example: no false alarm."""
    for seed in range(30):
        assert allocated(epochs(seed, size, steps, number=3), size, steps)


def test_imitations_of_random_allocation_are_told_apart() -> None:
    """Shuffled batches, one order for all epochs, public numbers, Poisson samples, two steps."""
    rng = np.random.default_rng(0)
    honest = epochs(0, SIZE, 20)
    assert allocated(honest, SIZE, 20)
    assert not allocated(shuffled(rng), SIZE, 20)
    assert not allocated(honest[:20] * 12, SIZE, 20)
    assert not allocated([np.arange(step % 20, SIZE, 20) for step in range(240)], SIZE, 20)
    assert not allocated(poisson(0), SIZE, 20)
    assert not allocated([np.union1d(draw, honest[3]) for draw in honest], SIZE, 20)
    assert not allocated([draw[draw > 0] for draw in honest], SIZE, 20)
    borders = [np.sort(rng.choice(SIZE, 19, replace=False)) for _ in range(12)]
    blocks = [each for cut in borders for each in np.split(np.arange(SIZE), cut)]
    assert not allocated(blocks, SIZE, 20)


def test_a_sampler_of_another_kind_than_was_priced_is_named() -> None:
    """A plan that allocates and Poisson draws, and the other way round."""
    plan = PrivacyPlan(
        dataset_size=SIZE,
        expected_batch_size=BATCH,
        steps=40,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
        sampling="allocated",
    )
    secret = RunSecret.from_fixed_seed(1)
    poissons = replace(plan, sampling="poisson")
    for priced, drawn in ((plan, poissons), (poissons, plan)):
        sampler = sampler_for(plan=drawn, secret=secret)
        found = draws_finding(sampler=sampler, plan=priced, least=200)
        assert not found.healthy
        assert type(sampler).__name__ in found.words
        assert draws_finding(sampler=sampler, plan=drawn, least=200).healthy
