"""Which quantity `dpacc calibrate` solves for: the one that was not given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
from dpacc_accounting import (
    Adjacency,
    Calibration,
    calibrate_batch_size,
    calibrate_delta,
    calibrate_epsilon,
    calibrate_noise,
    calibrate_noise_to_advantage,
    calibrate_noise_to_detection,
    calibrate_steps,
    noise_at_rate,
)

RISKS = ("advantage", "true_positives", "false_positives")
_TITLES = {
    "noise_multiplier": "Calibrated noise",
    "steps": "Most steps within the budget",
    "batch_size": "Largest batch within the budget",
    "epsilon": "ε of this training run",
    "delta": "δ of this training run",
}


@dataclass(frozen=True, kw_only=True)
class FreeQuantity:
    """A quantity to solve for, and the function that does it.

    Args:
        name: the setting that was left out.
        solver: the accountant's function for it.
        takes: the settings that the solver needs; a length may be epochs or steps.
    """

    name: str
    solver: Callable[..., Calibration]
    takes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the answer is called.

        >>> free_quantity(settings={"noise_multiplier": None}).title
        'Calibrated noise'
        """
        return _TITLES[self.name]

    def solve(self, *, settings: Mapping[str, Any]) -> Calibration:
        """The plan whose free quantity is just within what the others allow.

        Raises:
            click.UsageError: a setting is missing, or is given and has no place here.
            ValueError: a setting is out of range.
        """
        _require(self, settings)
        given = {name: settings[name] for name in self.takes if settings.get(name) is not None}
        return self.solver(
            **given,
            adjacency=Adjacency(settings["adjacency"]),
            unit=settings["unit"],
            method=settings["method"],
        )


_LENGTH = ("epochs", "steps")
_TRAINING = ("dataset_size", "batch_size", *_LENGTH)
_NOISE = FreeQuantity(
    name="noise_multiplier", solver=calibrate_noise, takes=("epsilon", "delta", *_TRAINING)
)
_NOISE_AT_RATE = FreeQuantity(
    name="noise_multiplier",
    solver=noise_at_rate,
    takes=("epsilon", "delta", "sample_rate", *_LENGTH),
)
_ADVANTAGE = FreeQuantity(
    name="noise_multiplier",
    solver=calibrate_noise_to_advantage,
    takes=("advantage", *_TRAINING),
)
_DETECTION = FreeQuantity(
    name="noise_multiplier",
    solver=calibrate_noise_to_detection,
    takes=("true_positives", "false_positives", *_TRAINING),
)
_STEPS = FreeQuantity(
    name="steps",
    solver=calibrate_steps,
    takes=("epsilon", "delta", "dataset_size", "batch_size", "noise_multiplier"),
)
_BATCH = FreeQuantity(
    name="batch_size",
    solver=calibrate_batch_size,
    takes=("epsilon", "delta", "dataset_size", *_LENGTH, "noise_multiplier"),
)
_EPSILON = FreeQuantity(
    name="epsilon", solver=calibrate_epsilon, takes=("delta", *_TRAINING, "noise_multiplier")
)
_DELTA = FreeQuantity(
    name="delta", solver=calibrate_delta, takes=("epsilon", *_TRAINING, "noise_multiplier")
)


def free_quantity(*, settings: Mapping[str, Any]) -> FreeQuantity:
    """What to solve for: the noise, or with the noise given the one other thing left out.

    Raises:
        click.UsageError: with the noise given, nothing or more than one thing is left out.

    >>> free_quantity(settings={"noise_multiplier": 1.0, "batch_size": 8, "epochs": 1.0,
    ...                         "epsilon": 8.0}).name
    'delta'
    """
    if settings.get("sample_rate") is not None:
        return _at_rate(settings)
    if settings["noise_multiplier"] is None:
        return _noise_for(settings)
    if any(settings.get(name) is not None for name in RISKS):
        raise click.UsageError("An attack risk is a target for the noise: drop --noise-multiplier.")
    left_out = [
        free
        for free, names in (
            (_EPSILON, ("epsilon",)),
            (_DELTA, ("delta",)),
            (_BATCH, ("batch_size",)),
            (_STEPS, _LENGTH),
        )
        if all(settings.get(name) is None for name in names)
    ]
    if len(left_out) != 1:
        missing = ", ".join(_option(free.name) for free in left_out) or "nothing"
        raise click.UsageError(
            f"With --noise-multiplier leave out one of --epsilon, --delta, --batch-size and "
            f"--steps (or --epochs), to be solved for; left out here: {missing}."
        )
    return left_out[0]


def _at_rate(settings: Mapping[str, Any]) -> FreeQuantity:
    for name in ("dataset_size", "batch_size", "noise_multiplier", *RISKS):
        if settings.get(name) is not None:
            raise click.UsageError(
                f"--sample-rate finds the noise for ε and δ where sizes are unknown: drop "
                f"{_option(name)}, or give --dataset-size and --batch-size instead."
            )
    return _NOISE_AT_RATE


def _noise_for(settings: Mapping[str, Any]) -> FreeQuantity:
    detection = [name for name in RISKS[1:] if settings.get(name) is not None]
    if settings.get("advantage") is not None:
        found = _ADVANTAGE
    elif detection:
        found = _DETECTION
    else:
        return _NOISE
    for name in ("epsilon", "delta", *RISKS):
        if settings.get(name) is not None and name not in found.takes:
            raise click.UsageError(
                f"{_option(name)} and {_option(found.takes[0])} are two targets; give one."
            )
    return found


def _require(free: FreeQuantity, settings: Mapping[str, Any]) -> None:
    for name in free.takes:
        if name not in _LENGTH and settings.get(name) is None:
            raise click.UsageError(f"Missing option '{_option(name)}'.")
    lengths = [name for name in _LENGTH if settings.get(name) is not None]
    if "steps" in free.takes and len(lengths) != 1:
        raise click.UsageError("Give either --epochs or --steps, and not both.")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
