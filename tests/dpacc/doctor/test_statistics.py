"""The doctor's tests tell Poisson from its imitations, and the right noise from wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from dpacc.doctor.statistics import noise_finding, sampling_finding
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import PoissonSampler

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
