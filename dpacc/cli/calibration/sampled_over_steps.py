"""`dpacc calibrate` where a unit's steps depend on each other: drawn in turns, or once an epoch.

`--correlation banded` is noise of which later steps take a part back; `--sampling allocated` puts
each unit into exactly one step of each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from dpacc_accounting import (
    Adjacency,
    BandedCalibration,
    Calibration,
    calibrate_allocated_noise,
    calibrate_banded_noise,
    calibrate_noise,
    event_to_json,
)
from dpacc_accounting.calibration.banded_noise import USUAL_MOMENTUM
from dpacc_accounting.events.participation import steps_an_epoch
from dpacc_accounting.factorization.banded import largest_step_noise
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli.guarantee_table import guarantee_rows

_TAKES = ("epsilon", "delta", "dataset_size", "batch_size")
_LENGTH = ("epochs", "steps")
_REMEDIES = {
    "sample_rate": "it needs both sizes: give --dataset-size and --batch-size instead",
    "noise_multiplier": "what is found is the noise: drop it, and give --epsilon and --delta",
    "advantage": "give --epsilon and --delta instead",
    "true_positives": "give --epsilon and --delta instead",
    "false_positives": "give --epsilon and --delta instead",
}
_WORKLOAD = f"a constant learning rate with momentum {USUAL_MOMENTUM:g}"


def solve_banded(*, settings: Mapping[str, Any], bands: int | None) -> BandedCalibration:
    """The correlated noise that keeps the budget and leaves least in the parameters.

    Args:
        settings: of `dpacc calibrate`.
        bands: how many; None for the best number.

    Raises:
        click.UsageError: a setting is missing, or has no place beside correlated noise.
        ValueError: a setting is out of range.
    """
    return calibrate_banded_noise(**noise_asked(settings, of="--correlation banded"), bands=bands)


def noise_asked(settings: Mapping[str, Any], *, of: str) -> dict[str, Any]:
    """What a calibration takes that finds noise, and nothing else, for ε and δ and both sizes.

    Raises:
        click.UsageError: a setting is missing, or has no place beside `of`.
    """
    for name, remedy in _REMEDIES.items():
        if settings[name] is not None:
            raise click.UsageError(f"{of} with {_option(name)}: {remedy}.")
    if settings["method"] != "pld":
        raise click.UsageError(
            f"{of} is calibrated by pld, not {settings['method']}: drop --method."
        )
    for name in _TAKES:
        if settings[name] is None:
            raise click.UsageError(f"Missing option '{_option(name)}'.")
    if sum(settings[name] is not None for name in _LENGTH) != 1:
        raise click.UsageError("Give either --epochs or --steps, and not both.")
    asked = {name: settings[name] for name in (*_TAKES, *_LENGTH, "unit")}
    return asked | {"adjacency": Adjacency(settings["adjacency"])}


def banded_document(found: BandedCalibration, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a script reads: the noise, what it costs and what it leaves."""
    return {
        "correlation": "banded",
        "bands": found.bands,
        "noise_coefficients": [*found.coefficients],
        **_noise_document(found.calibration, settings),
        "independent_noise_multiplier": found.independent_noise,
        "accumulated_noise_left": found.error,
        "largest_step_noise": _largest_step(found),
        "workload": {"learning_rate": "constant", "momentum": USUAL_MOMENTUM, "averaged": 0.0},
    }


def _noise_document(made: Calibration, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of noise in either case."""
    return {
        "solved_for": "noise_multiplier",
        "noise_multiplier": made.noise_multiplier,
        **made.guarantee.to_json(),
        "steps": made.steps,
        "sample_rate": made.sample_rate,
        "sampling": made.sampling,
        "dataset_size": settings["dataset_size"],
        "batch_size": settings["batch_size"],
        "target_epsilon": settings["epsilon"],
        "event": event_to_json(event=made.event),
    }


def banded_facts(found: BandedCalibration, *, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person reads."""
    made, bands = found.calibration, found.bands
    size, batch = settings["dataset_size"], settings["batch_size"]
    sigma = rounded_up(made.noise_multiplier, digits=6)
    turn = f"{made.sample_rate:.6g} = {bands}·{batch}/{size}"
    unit = made.guarantee.unit
    return [
        ("noise multiplier σ", sigma),
        ("bands b", f"{bands}: so many steps' noise is correlated (coefficients: --json)"),
        ("steps T", f"{made.steps}, {made.steps * batch / size:.4g} epochs"),
        (
            "probability in a turn",
            f"{turn}: each {unit} has its turn in every b-th step, and joins it so often",
        ),
        *guarantee_rows(made.guarantee),
        (
            "noise left",
            f"{found.error:.3g} of what independent noise of σ = {found.independent_noise:g} "
            f"leaves in the parameters, at the same ε and for {_WORKLOAD}",
        ),
        (
            "noise of one step",
            f"up to {_largest_step(found):.3g} times that of independent noise; later steps take "
            "it back",
        ),
        (
            "sampling",
            f"{made.sampling}: {'shuffled' if bands == 1 else 'other'} batches would not "
            "be covered",
        ),
        (
            "to use it",
            f"set correlation: banded and bands: {bands} in a run's configuration; its noise then "
            "suits its own learning rates"
            if bands > 1
            else "leave correlation out: here independent noise on Poisson samples is best",
        ),
    ]


def _largest_step(found: BandedCalibration) -> float:
    """One step's largest noise, over that of independent noise at the same ε."""
    made = found.calibration
    grown = largest_step_noise(coefficients=found.coefficients, steps=made.steps)
    return grown * made.noise_multiplier / found.independent_noise


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


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
    return {
        **_noise_document(found.calibration, settings),
        "steps_an_epoch": found.epoch,
        "poisson_noise_multiplier": found.poisson,
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
