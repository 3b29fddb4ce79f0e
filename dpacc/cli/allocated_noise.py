"""`dpacc calibrate --sampling allocated`: each unit in exactly one step of each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpacc_accounting import (
    Calibration,
    calibrate_allocated_noise,
    calibrate_noise,
    event_to_json,
)
from dpacc_accounting.events.participation import steps_an_epoch
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli.banded_noise import noise_asked
from dpacc.cli.guarantee_table import guarantee_rows


@dataclass(frozen=True, kw_only=True)
class AllocatedCalibration:
    """Noise for random allocation, and what Poisson sampling needs at the same ε.

    Args:
        calibration: σ, steps and the guarantee.
        poisson: σ of Poisson sampling, for as many steps of the same batch size.
        epoch: E, the steps of an epoch.
    """

    calibration: Calibration
    poisson: float
    epoch: int

    @property
    def saved(self) -> float:
        """The share of Poisson sampling's σ that is not needed."""
        return 1 - self.calibration.noise_multiplier / self.poisson


def solve_allocated(*, settings: Mapping[str, Any]) -> AllocatedCalibration:
    """The least noise that keeps the budget.

    Args:
        settings: of `dpacc calibrate`.

    Raises:
        click.UsageError: a setting is missing, or has no place beside random allocation.
        ValueError: a setting is out of range.
    """
    asked = noise_asked(settings, of="--sampling allocated")
    found = calibrate_allocated_noise(**asked)
    poisson = calibrate_noise(**{**asked, "epochs": None, "steps": found.steps})
    epoch = steps_an_epoch(
        dataset_size=asked["dataset_size"], expected_batch_size=asked["batch_size"]
    )
    return AllocatedCalibration(calibration=found, poisson=poisson.noise_multiplier, epoch=epoch)


def allocated_document(
    found: AllocatedCalibration, *, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a script reads."""
    made = found.calibration
    return {
        "solved_for": "noise_multiplier",
        "noise_multiplier": made.noise_multiplier,
        **made.guarantee.to_json(),
        "steps": made.steps,
        "steps_an_epoch": found.epoch,
        "sample_rate": made.sample_rate,
        "sampling": made.sampling,
        "dataset_size": settings["dataset_size"],
        "batch_size": settings["batch_size"],
        "target_epsilon": settings["epsilon"],
        "poisson_noise_multiplier": found.poisson,
        "event": event_to_json(event=made.event),
    }


def allocated_facts(
    found: AllocatedCalibration, *, settings: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """What a person reads."""
    made, unit = found.calibration, found.calibration.guarantee.unit
    size, batch = settings["dataset_size"], settings["batch_size"]
    sigma = rounded_up(made.noise_multiplier, digits=6)
    whole, rest = divmod(made.steps, found.epoch)
    cut = f", and {rest} steps of one more" if rest else ""
    # Rounded down: never to the flattering side.
    saved = math.floor(1000 * found.saved) / 10
    return [
        ("noise multiplier σ", sigma),
        ("steps T", f"{made.steps}: {whole} epochs of {found.epoch} = ⌈{size}/{batch}⌉ each{cut}"),
        ("a step holds", f"{size / found.epoch:.6g} {unit}s on average; how many is secret"),
        *guarantee_rows(made.guarantee),
        ("less noise", f"{saved:g}% less than Poisson sampling's σ = {found.poisson:g}"),
        (
            "sampling",
            f"{made.sampling}: each {unit} in one step of each epoch, drawn uniformly and in "
            "secret; batches of one size, cut from a shuffled order, would not be covered",
        ),
        ("to use it", "set sampling: allocated in a run's configuration"),
    ]
