"""`dpacc calibrate`: the noise that a privacy budget asks for."""

from pathlib import Path
from typing import Any

import click
from dpacc_accounting import Adjacency, Calibration, event_to_json
from dpacc_accounting.guarantee import rounded_up
from dpacc_accounting.ledger.plan_settings import require_one_way

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import options, terminal
from dpacc.cli.calibration.free_quantity import RISKS, FreeQuantity, free_quantity
from dpacc.cli.guarantee_table import guarantee_rows


@click.command(short_help="Find the least noise that keeps training within a privacy budget.")
@click.option("--epsilon", type=float, help="ε that training may spend.")
@click.option("--delta", type=float, help="δ that goes with ε; well below 1/N.")
@click.option("--dataset-size", type=int, help="N, the number of examples.")
@click.option("--batch-size", type=int, help="Expected size of a logical batch.")
@click.option("--sample-rate", type=float, help="q = batch / N, instead of both sizes.")
@click.option("--epochs", type=float, help="Passes over the data; steps = ⌈epochs·N / batch⌉.")
@click.option("--steps", type=int, help="Logical steps, instead of epochs.")
@click.option("--noise-multiplier", type=float, help="σ; then one other quantity is left out.")
@click.option("--advantage", type=float, help="Instead of ε and δ: most that guessing may gain.")
@click.option("--true-positives", type=float, help="Instead of ε and δ: most members caught ...")
@click.option("--false-positives", type=float, help="... at this share of false alarms.")
@click.option(
    "--adjacency",
    type=click.Choice([str(each) for each in Adjacency]),
    default=str(Adjacency.ADD_OR_REMOVE),
    show_default=True,
    help="Which two datasets count as neighbours.",
)
@click.option("--unit", default="example", show_default=True, help="What one row stands for.")
@click.option(
    "--method",
    type=click.Choice(["pld", "rdp"]),
    default="pld",
    show_default=True,
    help="Accountant: pld is tight, rdp is classical and looser.",
)
@click.option(
    "--correlation",
    type=click.Choice(["none", "banded"]),
    default="none",
    show_default=True,
    help="banded: later steps take back a part of earlier noise.",
)
@click.option(
    "--sampling",
    type=click.Choice(["poisson", "allocated"]),
    default="poisson",
    show_default=True,
    help="allocated: each example in exactly one step of each epoch.",
)
@click.option("--bands", type=click.IntRange(min=2), help="How many steps' noise is correlated.")
@click.option(
    "--sweep",
    multiple=True,
    metavar="SETTING=V,V...",
    help="Calibrate for several values of a setting; name more settings after the first.",
)
@click.argument("axes", nargs=-1, metavar="[SETTING=V,V...]...")
@options.plot
@options.as_json
def calibrate(
    as_json: bool,
    plot: Path | None,
    sweep: tuple[str, ...],
    axes: tuple[str, ...],
    correlation: str,
    sampling: str,
    bands: int | None,
    **settings: Any,
) -> None:
    """Find the least noise multiplier σ for DP-SGD with Poisson-sampled or allocated batches.

    Give either --epochs or --steps; training must run exactly that many steps. With
    --noise-multiplier, leave out one of ε, δ, the batch size and the length: that is solved for.

    \b
    The most steps that σ = 0.6 affords, and the noise that stops an attack:
      dpacc calibrate --noise-multiplier 0.6 --epsilon 8 --delta 1e-5 \\
        --dataset-size 67349 --batch-size 256
      dpacc calibrate --true-positives 0.05 --false-positives 0.01 \\
        --dataset-size 67349 --batch-size 256 --epochs 3

    \b
    Noise that is correlated between steps, of the best number of bands:
      dpacc calibrate --correlation banded --epsilon 8 --delta 1e-5 \\
        --dataset-size 67349 --batch-size 256 --epochs 3

    \b
    Each example in exactly one step of each epoch, drawn in secret:
      dpacc calibrate --sampling allocated --epsilon 8 --delta 1e-5 \\
        --dataset-size 8192 --batch-size 512 --epochs 2

    \b
    A table, and a figure, for several settings at once:
      dpacc calibrate --delta 1e-5 --dataset-size 67349 --epochs 3 \\
        --sweep epsilon=1,2,4,8 batch_size=128,256,512 --plot sweep.png
    """
    if bands is not None and correlation == "none":
        raise click.UsageError("--bands are of correlated noise: add --correlation banded.")
    require_one_way(sampling=sampling, correlation=correlation)
    if sweep and correlation != "none":
        raise click.UsageError("--sweep is of independent noise: drop --correlation.")
    if sweep and sampling != "poisson":
        raise click.UsageError("--sweep is of Poisson sampling: drop --sampling.")
    if sweep:
        _sweep((*sweep, *axes), settings, plot, as_json=as_json)
        return
    if axes or plot:
        raise click.UsageError(f"{axes[0] if axes else '--plot'} needs --sweep.")
    if correlation == "banded":
        _banded(settings, bands, as_json=as_json)
        return
    if sampling == "allocated":
        _allocated(settings, as_json=as_json)
        return
    free = free_quantity(settings=settings)
    found = free.solve(settings=settings)
    if as_json:
        terminal.show_json(_document(found, free, settings))
    else:
        terminal.show_facts(title=free.title, facts=_facts(found, free, settings))


def _sweep(
    words: tuple[str, ...], settings: dict[str, Any], plot: Path | None, *, as_json: bool
) -> None:
    from dpacc.cli.calibration.sweep import calibrate_all, draw_rows, read_axes, show_rows

    axes = read_axes(words)
    for name in axes:
        if settings[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is given, and swept as well.")
    for name in ("noise_multiplier", *RISKS):
        if settings[name] is not None:
            raise click.UsageError(
                f"--sweep finds the noise for ε and δ: drop --{name.replace('_', '-')}."
            )
    rows = calibrate_all(axes=axes, settings=settings)
    if plot is not None:
        picture = draw_rows(rows=rows, axes=axes, form=format_of(path=plot))
        options.write_picture(path=plot, picture=picture)
    if as_json:
        fixed = {name: value for name, value in settings.items() if value is not None}
        terminal.show_json({**fixed, "sampling": "poisson", "rows": rows})
    else:
        show_rows(rows=rows, axes=axes, settings=settings)


def _banded(settings: dict[str, Any], bands: int | None, *, as_json: bool) -> None:
    from dpacc.cli.calibration.sampled_over_steps import banded_document, banded_facts, solve_banded

    with terminal.at_work("calibrating"):
        found = solve_banded(settings=settings, bands=bands)
    if as_json:
        terminal.show_json(banded_document(found, settings=settings))
    else:
        facts = banded_facts(found, settings=settings)
        terminal.show_facts(title="Calibrated correlated noise", facts=facts)


def _allocated(settings: dict[str, Any], *, as_json: bool) -> None:
    from dpacc.cli.calibration.sampled_over_steps import (
        allocated_document,
        allocated_facts,
        solve_allocated,
    )

    with terminal.at_work("calibrating"):
        found = solve_allocated(settings=settings)
    if as_json:
        terminal.show_json(allocated_document(found, settings=settings))
    else:
        facts = allocated_facts(found, settings=settings)
        terminal.show_facts(title="Calibrated noise of random allocation", facts=facts)


def _document(found: Calibration, free: FreeQuantity, settings: dict[str, Any]) -> dict[str, Any]:
    targets = {name: settings[name] for name in RISKS if settings[name] is not None}
    return {
        "solved_for": free.name,
        "noise_multiplier": found.noise_multiplier,
        **found.guarantee.to_json(),
        "steps": found.steps,
        "sample_rate": found.sample_rate,
        "sampling": found.sampling,
        "dataset_size": settings["dataset_size"],
        "batch_size": settings["dataset_size"] and _batch_size(found, settings),
        "target_epsilon": settings["epsilon"],
        **targets,
        "event": event_to_json(event=found.event),
    }


def _facts(
    found: Calibration, free: FreeQuantity, settings: dict[str, Any]
) -> list[tuple[str, str]]:
    guarantee, size, rate = found.guarantee, settings["dataset_size"], f"{found.sample_rate:.6g}"
    sigma, epochs = rounded_up(found.noise_multiplier, digits=6), found.steps * found.sample_rate
    sizes = f" = {_batch_size(found, settings)}/{size}" if size else ""
    return [
        ("noise multiplier σ", sigma),
        ("steps T", f"{found.steps}, {epochs:.4g} epochs"),
        ("sampling probability q", f"{rate}{sizes}"),
        *guarantee_rows(guarantee),
        *_target(settings),
        ("sampling", f"{found.sampling}: shuffled batches would not be covered"),
        (
            "to use it",
            f"run exactly {found.steps} steps; in each, draw every {guarantee.unit} with "
            f"probability q, clip its gradient to norm C, and add noise of standard deviation "
            f"{sigma}·C once to the sum",
        ),
    ]


def _target(settings: dict[str, Any]) -> list[tuple[str, str]]:
    if settings["advantage"] is not None:
        limit = f"true positives exceed false ones by at most {settings['advantage']:g}"
    elif settings["true_positives"] is not None:
        limit = (
            f"at most {settings['true_positives']:g} of members caught at "
            f"{settings['false_positives']:g} false alarms"
        )
    else:
        return []
    return [("any attack on membership", limit)]


def _batch_size(found: Calibration, settings: dict[str, Any]) -> int:
    return round(found.sample_rate * int(settings["dataset_size"]))
