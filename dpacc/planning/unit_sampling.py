"""People who own several examples: drawn whole or example by example, and which is the better."""

from __future__ import annotations

import math
from typing import Any

from dpacc_accounting import UnitSampling, compare_unit_sampling
from dpacc_accounting.guarantee import rounded_up

from dpacc.recipe.config import TrainingConfig


def both_ways(*, config: TrainingConfig, units: int, examples: int) -> UnitSampling | None:
    """What protecting a configuration's units costs when they are drawn, and when examples are.

    Args:
        config: with `unit_cap`; otherwise there is nothing to compare.
        units: how many there are.
        examples: how many they own, at most `unit_cap` of each counted.

    Raises:
        ValueError: no noise keeps the budget, or batches do not fit.
    """
    if config.unit_cap is None or config.unit_field is None:
        return None
    batch = config.expected_batch_size
    if config.sampling == "examples":
        batch = max(1, round(batch * units / examples))
    return compare_unit_sampling(
        units=units,
        examples=examples,
        batch_of_units=batch,
        unit_cap=config.unit_cap,
        epochs=config.epochs,
        steps=config.steps,
        epsilon=config.epsilon,
        delta=config.delta_for(dataset_size=units),
        unit=config.unit_field,
    )


def in_words(*, both: UnitSampling, unit: str) -> list[tuple[str, str]]:
    """Lines for a table: the noise of a mean gradient either way, and which to choose.

    Args:
        both: priced at one budget and as many gradient evaluations.
        unit: what is protected.
    """
    least = 1 / math.sqrt(both.unit_cap)
    advice = {
        "units": f"draw {unit}s: sampling poisson",
        "examples": f"draw examples: sampling examples, for means of {both.unit_cap} gradients are "
        f"hardly shorter than {least:.2g} of one",
        "either": f"{unit}s where the mean of a {unit}'s gradients is shorter than "
        f"{both.break_even:.2g} of a single one ({least:.2g} where they have nothing in common), "
        "examples otherwise",
    }[both.better]
    return [
        (
            f"{unit}s drawn",
            f"{both.batch_of_units} a step, σ = {rounded_up(both.units.noise_multiplier)}: "
            f"{both.noise_of_units:.3g}·C of noise in the mean gradient",
        ),
        (
            "examples drawn",
            f"{both.batch_of_examples} a step, at most {both.unit_cap} kept of a {unit}, σ = "
            f"{rounded_up(both.examples.noise_multiplier)}: {both.noise_of_examples:.3g}·C",
        ),
        ("choose", advice),
    ]


def to_json(*, both: UnitSampling) -> dict[str, Any]:
    """The same as data.

    Args:
        both: as in `in_words`.
    """
    return {
        "unit_cap": both.unit_cap,
        "units": {
            "expected_batch_size": both.batch_of_units,
            "noise_multiplier": both.units.noise_multiplier,
            "noise_of_mean_over_c": both.noise_of_units,
        },
        "examples": {
            "expected_batch_size": both.batch_of_examples,
            "noise_multiplier": both.examples.noise_multiplier,
            "noise_of_mean_over_c": both.noise_of_examples,
        },
        "break_even": both.break_even,
        "better": both.better,
    }
