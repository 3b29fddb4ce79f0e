"""Which batch size to spend a budget of gradient evaluations on, and when more would gain little.

B·T gradients are evaluated in T steps of expected batch B. The noise of one averaged gradient has
the standard deviation σ/B, over the clipping norm: the noise-batch ratio, through which alone
privacy enters the laws of McKenna et al. 2025 (arXiv 2501.18914). What a run is left with is judged
by its effective noise,

    ν = σ·e / (B·√T),

where e is the root mean square of the noise in the run's parameters over that of independent noise
of the same σ, and 1 without correlation: the noise in the mean of all T averaged gradients, of
which the parameters are made, per coordinate and over the clipping norm. It is comparable between
all B and T, and so is its ratio to what the same (ε, δ) leaves in the mean gradient of all N units
when that is released once, σ₁/N with σ₁ of one Gaussian mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from dpacc_accounting.calibration.banded_noise import (
    MOST_BANDS,
    USUAL_MOMENTUM,
    BandedCalibration,
    calibrate_banded_noise,
)
from dpacc_accounting.calibration.noise import noise_at_rate, require_epsilon
from dpacc_accounting.events.arguments import require_delta, whole
from dpacc_accounting.factorization.banded import inverse_series, optimal_coefficients
from dpacc_accounting.factorization.workload import NoiseTable, Workload
from dpacc_accounting.gaussian import gaussian_mu
from dpacc_accounting.pricing.small_delta import require_small_delta

LONGEST, SHORTEST = 4096, 64
"""Longer runs are not compared, and shorter ones not recommended: they hardly learn."""
LEAST_GAIN = 0.1
"""Twice the compute pays where it lowers the effective noise by this share."""
WORTH_CORRELATING = 0.95
"""Correlated noise is recommended where it leaves no more than this share."""
USUAL_AVERAGE = 0.5

# For comparing, longer runs take the coefficients of so many steps: at most 2% from their best.
_OPTIMISED = 512

Size = tuple[int, int]
Track = Callable[[Sequence[Size]], Iterable[Size]]


@dataclass(frozen=True, kw_only=True)
class BatchChoice:
    """One way to spend the budget.

    Args:
        batch_size: B, expected.
        steps: T.
        noise_multiplier: σ of independent noise.
        independent: its effective noise ν.
        bands: the number that leaves least, 1 where independent noise does.
        banded_noise: σ at so many bands.
        banded: the effective noise at so many bands.
        doubling: the share by which ν would fall with twice the batch, or the whole data, in as
            many steps: with the compute doubled, of whichever noise is best.
        doubling_independent: the same of independent noise alone.
    """

    batch_size: int
    steps: int
    noise_multiplier: float
    independent: float
    bands: int
    banded_noise: float
    banded: float
    doubling: float
    doubling_independent: float

    @property
    def pays(self) -> bool:
        """Whether correlation leaves clearly less."""
        return self.banded <= WORTH_CORRELATING * self.independent


@dataclass(frozen=True, kw_only=True)
class BatchRecommendation:
    """Every batch size for the budget, and the one to take.

    Args:
        choices: by rising batch size.
        knee: of `SHORTEST` steps or more, the most steps for which twice the compute would lower
            the effective noise by less than `LEAST_GAIN`; None where the budget has no such.
        chosen: the knee, or what of `SHORTEST` steps or more comes nearest to it.
        calibration: the noise of `chosen`, and its guarantee.
        uncorrelated: what would be chosen if all noise were independent.
        single_release: σ₁/N, what ν is compared with.
    """

    choices: tuple[BatchChoice, ...]
    knee: BatchChoice | None
    chosen: BatchChoice
    calibration: BandedCalibration
    uncorrelated: BatchChoice
    single_release: float


def recommend_batch_size(
    *,
    dataset_size: int,
    gradient_evaluations: int,
    epsilon: float,
    delta: float,
    unit: str = "example",
    momentum: float = USUAL_MOMENTUM,
    averaged: float = USUAL_AVERAGE,
    track: Track = iter,
) -> BatchRecommendation:
    """Batch size, steps and bands for a budget of gradient evaluations, under add-or-remove.

    Batches are powers of two and the whole data, each in as many steps as the budget affords.

    Args:
        dataset_size: number of privacy units N.
        gradient_evaluations: B·T, at most, on average.
        epsilon: target ε > 0 of the whole run.
        delta: target δ, below 1/N.
        unit: whose data one unit is, for the record.
        momentum: β of the optimizer, whose learning rate is taken as constant.
        averaged: the share of the last iterates whose mean is the result.
        track: sees the pairs (B, T) before each is compared, for showing progress.

    Raises:
        ValueError: an argument is out of range.

    Source: the noise-batch ratio, and fixing it by the accountant's σ, as in McKenna et al. 2025
    (arXiv 2501.18914); bands as in `calibrate_banded_noise`.

    >>> found = recommend_batch_size(
    ...     dataset_size=2000, gradient_evaluations=20_000, epsilon=3.0, delta=1e-4)
    >>> found.chosen.batch_size, found.chosen.steps, found.chosen.bands, found.knee is not None
    (8, 2500, 64, True)
    """
    size, budget = (
        whole("dataset_size", dataset_size),
        whole("gradient_evaluations", gradient_evaluations),
    )
    require_small_delta(delta=require_delta(delta), dataset_size=size, unit=unit)
    comparing = _Comparison(size, require_epsilon(epsilon), delta, momentum, averaged)
    sizes = batches(size=size, budget=budget)
    choices = tuple(comparing.choice(batch, steps) for batch, steps in track(sizes))
    knee = _knee(choices, lambda each: each.doubling)
    chosen = knee or _nearest(choices)
    return BatchRecommendation(
        choices=choices,
        knee=knee,
        chosen=chosen,
        calibration=calibrate_banded_noise(
            dataset_size=size,
            batch_size=chosen.batch_size,
            steps=chosen.steps,
            epsilon=epsilon,
            delta=delta,
            unit=unit,
            bands=chosen.bands if chosen.pays else 1,
            workload=comparing.workload(chosen.steps),
        ),
        uncorrelated=_knee(choices, lambda each: each.doubling_independent) or _nearest(choices),
        single_release=comparing.single_release,
    )


def batches(*, size: int, budget: int) -> list[Size]:
    """Powers of two and the largest batch, each with the steps that the budget affords.

    >>> batches(size=10, budget=30)
    [(1, 30), (2, 15), (4, 7), (8, 3), (10, 3)]
    """
    largest = min(size, budget)
    powers = [1 << k for k in range(largest.bit_length()) if budget // (1 << k) <= LONGEST]
    sizes = sorted({*powers, largest})
    return [(batch, min(budget // batch, LONGEST)) for batch in sizes]


def _knee(
    choices: Sequence[BatchChoice], gain: Callable[[BatchChoice], float]
) -> BatchChoice | None:
    """The first, of the most steps, that gains little; choices come by falling steps."""
    return next((e for e in choices if e.steps >= SHORTEST and gain(e) < LEAST_GAIN), None)


def _nearest(choices: Sequence[BatchChoice]) -> BatchChoice:
    """The largest batch of enough steps, or the most steps."""
    return [choices[0], *(each for each in choices if each.steps >= SHORTEST)][-1]


@dataclass(frozen=True)
class _Comparison:
    """All that choices have in common; prices are kept, for many are of one rate and length."""

    size: int
    epsilon: float
    delta: float
    momentum: float
    averaged: float
    prices: dict[Size, float] = field(default_factory=dict)

    @property
    def single_release(self) -> float:
        """σ₁/N."""
        return 1 / (self.size * gaussian_mu(epsilon=self.epsilon, delta=self.delta))

    def workload(self, steps: int) -> Workload:
        """Of a run of so many steps."""
        return Workload.constant(steps=steps, momentum=self.momentum, averaged=self.averaged)

    def choice(self, batch: int, steps: int) -> BatchChoice:
        """One batch size, beside what twice as large a one would leave."""
        found = self._by_bands(batch, steps)
        best = min(found, key=lambda bands: found[bands][1])
        more = min(2 * batch, self.size)
        doubled = {bands: left for bands, (_, left) in self._by_bands(more, steps).items()}
        return BatchChoice(
            batch_size=batch,
            steps=steps,
            noise_multiplier=found[1][0],
            independent=found[1][1],
            bands=best,
            banded_noise=found[best][0],
            banded=found[best][1],
            doubling=1 - min(doubled.values()) / found[best][1],
            doubling_independent=1 - doubled[1] / found[1][1],
        )

    def _by_bands(self, batch: int, steps: int) -> dict[int, tuple[float, float]]:
        """σ and ν for each number of bands that fits."""
        table = NoiseTable(self.workload(steps))
        most = min(MOST_BANDS, self.size // batch, steps)
        found = {}
        for bands in (1 << power for power in range(most.bit_length())):
            column = np.zeros(steps)
            column[:bands] = self._coefficients(steps, bands)
            left = math.sqrt(table.mean_square(inverse_series(column)))
            sigma = self._noise(bands * batch, math.ceil(steps / bands))
            found[bands] = sigma, sigma * left / (batch * math.sqrt(steps))
        return found

    def _coefficients(self, steps: int, bands: int) -> tuple[float, ...]:
        return _coefficients(self.workload(min(steps, _OPTIMISED)), bands)

    def _noise(self, drawn: int, turns: int) -> float:
        """σ of so many Poisson samples of rate `drawn`/N."""
        if (drawn, turns) not in self.prices:
            self.prices[drawn, turns] = noise_at_rate(
                sample_rate=drawn / self.size,
                steps=turns,
                epsilon=self.epsilon,
                delta=self.delta,
            ).noise_multiplier
        return self.prices[drawn, turns]


@lru_cache(maxsize=256)
def _coefficients(workload: Workload, bands: int) -> tuple[float, ...]:
    return optimal_coefficients(workload=workload, bands=bands)
