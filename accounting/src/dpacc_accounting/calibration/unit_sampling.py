"""Solve for the noise of people who own several examples, sampled whole or example by example.

Whole units (ULS): a unit joins a step with probability q, its examples' gradients are averaged and
clipped to C. Single examples (ELS): at most k of a unit's examples are kept, each joins by its own
coin and is clipped to C by itself, and noise must hide up to k of them. At equal gradient
evaluations a step the mean gradient has noise of σ·C over the number of summands, which is less for
single examples, whose numbers chance keeps low. But a mean of k gradients is shorter than each of
them, down to 1/√k where they have nothing in common, so that whole units bear a smaller C.

Source: Charles et al. 2024 (arXiv 2407.07737).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from dpacc_accounting.calibration.event_scale import calibrate_event
from dpacc_accounting.calibration.noise import calibrate_noise
from dpacc_accounting.calibration.training_runs import Calibration, require_sizes, whole_steps
from dpacc_accounting.events.arguments import require_delta, whole
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.example_sampling import ExampleSampling
from dpacc_accounting.pricing.small_delta import require_small_delta, warn_of_large_delta

Better = Literal["units", "examples", "either"]


def calibrate_example_sampling(
    *,
    examples: int,
    batch_size: int,
    unit_cap: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    units: int | None = None,
    unit: str = "unit",
) -> Calibration:
    """The least noise (to 6 digits, rounded up) that protects units whose examples are sampled.

    Args:
        examples: how many are kept, at most `unit_cap` of each unit.
        batch_size: B, examples a step holds on average.
        unit_cap: k.
        epochs: expected passes over the kept examples; T = ⌈epochs · examples / B⌉. Or `steps`.
        steps: T itself.
        epsilon: target ε > 0, of a whole unit that is added or removed.
        delta: target δ, below 1 / units.
        units: how many there are; left out, as many as examples, which is the safe side for δ.
        unit: what one is, for the record.

    Raises:
        ValueError: an argument is out of range; the message shows it and the remedy.

    Source: Charles et al. 2024 (arXiv 2407.07737).

    >>> found = calibrate_example_sampling(examples=8000, units=1000, batch_size=80, unit_cap=8,
    ...                                    epochs=1, epsilon=4.0, delta=1e-4)
    >>> found.steps, found.sampling, found.guarantee.epsilon <= 4.0
    (100, 'examples', True)
    """
    size, batch = require_sizes(examples, batch_size)
    delta = require_delta(delta)
    owners = size if units is None else _units_of(units, examples=size, unit_cap=unit_cap)
    require_small_delta(delta=delta, dataset_size=owners, unit=unit)
    warn_of_large_delta(delta=delta, dataset_size=owners, unit=unit)
    count = whole_steps(size, batch, epochs, steps)
    run = ExampleSampling(
        dataset_size=size, expected_batch_size=batch, noise_multiplier=1.0, unit_cap=unit_cap
    )

    def event(sigma: float) -> Event:
        return replace(run, noise_multiplier=sigma).event(steps=count)

    found = calibrate_event(event=event, epsilon=epsilon, delta=delta, unit=unit)
    return Calibration(
        noise_multiplier=found.scale,
        steps=count,
        sample_rate=run.probability,
        guarantee=found.guarantee,
        event=found.event,
        sampling="examples",
    )


@dataclass(frozen=True, kw_only=True)
class UnitSampling:
    """Both ways of sampling for one budget, at equal gradient evaluations.

    Args:
        units: calibrated for whole units.
        examples: calibrated for single examples.
        batch_of_units: how many units a step holds on average.
        batch_of_examples: how many examples.
        unit_cap: k.
    """

    units: Calibration
    examples: Calibration
    batch_of_units: int
    batch_of_examples: int
    unit_cap: int

    @property
    def noise_of_units(self) -> float:
        """σ/B, the noise of the mean gradient over C, where units are sampled."""
        return self.units.noise_multiplier / self.batch_of_units

    @property
    def noise_of_examples(self) -> float:
        """σ/B where examples are sampled."""
        return self.examples.noise_multiplier / self.batch_of_examples

    @property
    def break_even(self) -> float:
        """How short a unit's mean gradient must be, over a single one, for whole units to pay."""
        return self.noise_of_examples / self.noise_of_units

    @property
    def better(self) -> Better:
        """Which has less noise for its signal whatever the gradients are; "either" if none has."""
        if self.break_even >= 1:
            return "units"
        return "examples" if self.break_even <= 1 / math.sqrt(self.unit_cap) else "either"


def compare_unit_sampling(
    *,
    units: int,
    examples: int,
    batch_of_units: int,
    unit_cap: int,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float,
    delta: float,
    unit: str = "unit",
) -> UnitSampling:
    """Price both ways of protecting whole units, for as many gradient evaluations.

    A step of B units evaluates as many gradients as these own on average, at most k each; as many
    examples are drawn where examples are sampled.

    Args:
        units: N.
        examples: how many they own together, at most `unit_cap` of each counted.
        batch_of_units: B, units a step holds on average.
        unit_cap: k.
        epochs: expected passes; or `steps`.
        steps: T.
        epsilon: target ε > 0.
        delta: target δ, below 1/N.
        unit: what one is, for the record.

    Raises:
        ValueError: an argument is out of range; the message shows it and the remedy.

    Source: Charles et al. 2024 (arXiv 2407.07737).

    >>> both = compare_unit_sampling(units=1000, examples=8000, batch_of_units=50, unit_cap=8,
    ...                              steps=100, epsilon=4.0, delta=1e-4)
    >>> both.batch_of_examples, round(both.break_even, 2), both.better
    (400, 0.59, 'either')
    """
    owners = _units_of(units, examples=examples, unit_cap=unit_cap)
    _, batch = require_sizes(owners, batch_of_units)
    whole_units = calibrate_noise(
        dataset_size=owners,
        batch_size=batch,
        epochs=epochs,
        steps=steps,
        epsilon=epsilon,
        delta=delta,
        unit=unit,
    )
    drawn = max(1, round(batch * examples / owners))
    single = calibrate_example_sampling(
        examples=examples,
        units=owners,
        batch_size=drawn,
        unit_cap=unit_cap,
        steps=whole_units.steps,
        epsilon=epsilon,
        delta=delta,
        unit=unit,
    )
    return UnitSampling(
        units=whole_units,
        examples=single,
        batch_of_units=batch,
        batch_of_examples=drawn,
        unit_cap=unit_cap,
    )


def _units_of(units: int, *, examples: int, unit_cap: int) -> int:
    owners = whole("units", units)
    if not owners <= examples <= owners * unit_cap:
        raise ValueError(
            f"examples={examples} cannot be those of units={owners}, each of which has from 1 to "
            f"unit_cap={unit_cap} that are kept"
        )
    return owners
