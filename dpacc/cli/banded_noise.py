"""`dpacc calibrate --correlation banded`: noise of which later steps take a part back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from dpacc_accounting import Adjacency, BandedCalibration, calibrate_banded_noise, event_to_json
from dpacc_accounting.calibration.banded_noise import USUAL_MOMENTUM
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
    made = found.calibration
    return {
        "solved_for": "noise_multiplier",
        "correlation": "banded",
        "noise_multiplier": made.noise_multiplier,
        "bands": found.bands,
        "noise_coefficients": [*found.coefficients],
        **made.guarantee.to_json(),
        "steps": made.steps,
        "sample_rate": made.sample_rate,
        "sampling": made.sampling,
        "dataset_size": settings["dataset_size"],
        "batch_size": settings["batch_size"],
        "target_epsilon": settings["epsilon"],
        "independent_noise_multiplier": found.independent_noise,
        "accumulated_noise_left": found.error,
        "largest_step_noise": _largest_step(found),
        "workload": {"learning_rate": "constant", "momentum": USUAL_MOMENTUM, "averaged": 0.0},
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
