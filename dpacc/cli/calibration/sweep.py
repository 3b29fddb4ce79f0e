"""Calibrate over a grid of settings: `dpacc calibrate --sweep epsilon=1,2,4 batch_size=128,256`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import click
from dpacc_accounting.federation.fields import nearest
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.figure_files import Format
from dpacc.cli import terminal
from dpacc.cli.calibration.free_quantity import free_quantity

KINDS: dict[str, type] = {
    "epsilon": float,
    "delta": float,
    "dataset_size": int,
    "batch_size": int,
    "epochs": float,
    "steps": int,
}
Axes = Mapping[str, Sequence[float]]


def read_axes(words: Sequence[str]) -> Axes:
    """The values of each setting in words such as `epsilon=1,2,4`.

    Raises:
        click.UsageError: a word that is no such list, an unknown setting, or one given twice.
    """
    axes: dict[str, list[float]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise click.UsageError(f"--sweep takes setting=value,value,..., not {word!r}.")
        if name not in KINDS:
            hint = nearest(name, [*KINDS]) or f"; choose from {', '.join(KINDS)}."
            raise click.UsageError(f"--sweep cannot vary {name!r}{hint}")
        if name in axes:
            raise click.UsageError(f"--sweep names {name!r} twice.")
        axes[name] = [_value(name, value) for value in values.split(",")]
    return axes


def calibrate_all(*, axes: Axes, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each combination of the axes: its settings, and the noise that it needs."""
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [
        _row(point, {**settings, **point})
        for point in terminal.tracked(grid, message="calibrating")
    ]


def show_rows(
    *, rows: Sequence[Mapping[str, Any]], axes: Axes, settings: Mapping[str, Any]
) -> None:
    """Print the rows as a table, and what they have in common below it."""
    terminal.show_table(
        title="Calibrated noise",
        columns=[*(name.replace("_", " ") for name in axes), "σ", "steps T", "q", "ε reached"],
        rows=[
            [
                *(f"{row[name]:g}" for name in axes),
                rounded_up(row["noise_multiplier"], digits=6),
                str(row["steps"]),
                f"{row['sample_rate']:.4g}",
                rounded_up(row["epsilon_reached"], digits=6),
            ]
            for row in rows
        ],
    )
    fixed = [(name.replace("_", " "), f"{settings[name]:g}") for name in KINDS if settings[name]]
    assumed = [(name, str(settings[name])) for name in ("adjacency", "unit", "method")]
    terminal.show_facts(title="", facts=[*fixed, *assumed, ("sampling", "poisson")])


def draw_rows(*, rows: Sequence[Mapping[str, Any]], axes: Axes, form: Format) -> bytes:
    """σ against the first axis, one line for each value of the second.

    Raises:
        click.UsageError: more axes than a figure shows.
    """
    from dpacc.artifacts.pictures import draw_sweep

    axis, *others = axes
    if len(others) > 1:
        raise click.UsageError("--plot shows at most two settings of --sweep; fix the others.")
    return draw_sweep(rows=rows, axis=axis, by=others[0] if others else None, form=form)


def _row(point: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, Any]:
    found = free_quantity(settings=settings).solve(settings=settings)
    return {
        **point,
        "noise_multiplier": found.noise_multiplier,
        "steps": found.steps,
        "sample_rate": found.sample_rate,
        "epsilon_reached": found.guarantee.epsilon,
        "slack": found.guarantee.slack,
    }


def _value(name: str, text: str) -> float:
    kind = KINDS[name]
    try:
        return kind(text)  # type: ignore[no-any-return]
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise click.UsageError(f"--sweep {name}: {text!r} is not {word}.") from None
