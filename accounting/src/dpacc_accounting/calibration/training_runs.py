"""A training run as calibrations see it: so many Gaussian steps on Poisson samples, at a price."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from dpacc_accounting.events.arguments import whole
from dpacc_accounting.events.event import Event, Gaussian, PoissonSampled, Repeated
from dpacc_accounting.events.fields import real
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.price import delta as price_delta
from dpacc_accounting.pricing.price import epsilon as price_epsilon

# Longer runs are refused: nobody trains so, and doubles lose their digits.
MOST_STEPS = 10**12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A plan that meets its target, and the guarantee that was evaluated for it.

    Args:
        noise_multiplier: σ, noise standard deviation over clipping norm.
        steps: T, how many releases.
        sample_rate: q = batch_size / dataset_size, each unit's chance to take part in a step.
        guarantee: the price of exactly this σ, with ε at most the target.
        event: what is released, T Poisson-sampled Gaussians.
        sampling: how batches must be drawn for the guarantee to hold.
    """

    noise_multiplier: float
    steps: int
    sample_rate: float
    guarantee: Guarantee
    event: Event
    sampling: str = "poisson"


@dataclass(frozen=True)
class TrainingRun:
    """All that makes a training run's price but its noise, which is solved for or given.

    Args:
        sample_rate: q, each unit's chance to take part in a step.
        steps: T, how many releases.
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: how it is priced.

    >>> run = TrainingRun(0.01, 1000, Adjacency.ADD_OR_REMOVE, "example", "pld")
    >>> round(run.at_delta(1.0, delta=1e-5).guarantee.epsilon, 3)
    1.828
    """

    sample_rate: float
    steps: int
    adjacency: Adjacency
    unit: str
    method: str

    def event(self, noise_multiplier: float) -> Repeated:
        """What is released with this noise."""
        return training(rate=self.sample_rate, noise_multiplier=noise_multiplier, steps=self.steps)

    def at_delta(self, noise_multiplier: float, *, delta: float) -> Calibration:
        """The run with this noise, and its ε at δ."""
        return self._priced(noise_multiplier, partial(price_epsilon, delta=delta))

    def at_epsilon(self, noise_multiplier: float, *, epsilon: float) -> Calibration:
        """The run with this noise, and its δ at ε."""
        return self._priced(noise_multiplier, partial(price_delta, epsilon=epsilon))

    def _priced(self, noise_multiplier: float, price: Callable[..., Guarantee]) -> Calibration:
        event = self.event(noise_multiplier)
        return Calibration(
            noise_multiplier=noise_multiplier,
            steps=self.steps,
            sample_rate=self.sample_rate,
            guarantee=price(
                event=event, adjacency=self.adjacency, unit=self.unit, method=self.method
            ),
            event=event,
        )


def training(*, rate: float, noise_multiplier: float, steps: int) -> Repeated:
    """T steps of DP-SGD: `steps` Gaussians, each on a Poisson sample of its own.

    >>> training(rate=0.5, noise_multiplier=2.0, steps=3).times
    3
    """
    release = PoissonSampled(probability=rate, event=Gaussian(noise_multiplier=noise_multiplier))
    return Repeated(event=release, times=steps)


def require_sizes(dataset_size: int, batch_size: int) -> tuple[int, int]:
    """Both sizes as whole numbers with 1 <= batch_size <= dataset_size.

    Raises:
        ValueError: with the values and the remedy.

    >>> require_sizes(1000, 10)
    (1000, 10)
    """
    size, batch = whole("dataset_size", dataset_size), whole("batch_size", batch_size)
    if batch > size:
        raise ValueError(
            f"batch_size={batch} exceeds dataset_size={size}; "
            "lower the batch size, or draw every unit in every step with batch_size=dataset_size"
        )
    return size, batch


def require_protection(rate: float, steps: int, delta: float, dataset_size: int) -> None:
    """Refuse a δ that leaving data out by chance already gives, without any noise.

    Raises:
        ValueError: with δ, that chance, and the remedy.
    """
    chance = -math.expm1(steps * math.log1p(-rate)) if rate < 1 else 1.0
    if chance <= delta:
        raise ValueError(
            f"delta={delta} is no less than the chance {chance:.3g} that a unit takes part at "
            f"all, so that no noise would be needed; choose delta below 1/{dataset_size}"
        )


def whole_steps(dataset_size: int, batch_size: int, epochs: float | None, steps: int | None) -> int:
    """T from whichever of `epochs` and `steps` is given: ⌈epochs · N / B⌉.

    Raises:
        ValueError: neither or both are given, or the one given is out of range.

    >>> whole_steps(1000, 10, 0.1, None)
    10
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs={epochs} and steps={steps}: give exactly one of them")
    if steps is not None:
        count = whole("steps", steps)
    else:
        passes = real(epochs, name="epochs")
        if not (math.isfinite(passes) and passes > 0):
            raise ValueError(f"epochs={passes} is not a finite number > 0")
        # From the shortest decimal: 0.1 epochs of 1000 in batches of 10 are 10 steps, not 11.
        count = math.ceil(Fraction(repr(passes)) * dataset_size / batch_size)
    if count > MOST_STEPS:
        asked = f"epochs={epochs}" if steps is None else f"steps={steps}"
        raise ValueError(
            f"{asked} at a sample rate of {batch_size}/{dataset_size} exceeds "
            f"{MOST_STEPS:.0e} steps; shorten the run or raise the batch size"
        )
    return count
