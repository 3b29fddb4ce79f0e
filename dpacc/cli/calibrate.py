"""`dpacc calibrate`: the noise that a privacy budget asks for."""

from typing import Any

import click
from dpacc_accounting import Adjacency, Calibration, calibrate_noise, event_to_json
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.promise import promise_rows


@click.command(short_help="Find the least noise that keeps training within a privacy budget.")
@click.option("--epsilon", type=float, required=True, help="ε that training may spend.")
@click.option("--delta", type=float, required=True, help="δ that goes with ε; well below 1/N.")
@click.option("--dataset-size", type=int, required=True, help="N, the number of examples.")
@click.option("--batch-size", type=int, required=True, help="Expected size of a logical batch.")
@click.option("--epochs", type=float, help="Passes over the data; steps = ⌈epochs·N / batch⌉.")
@click.option("--steps", type=int, help="Logical steps, instead of epochs.")
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
@options.as_json
def calibrate(as_json: bool, adjacency: str, **settings: Any) -> None:
    """Find the least noise multiplier σ for DP-SGD with Poisson-sampled batches.

    Give either --epochs or --steps; training must run exactly that many steps.
    """
    if (settings["epochs"] is None) == (settings["steps"] is None):
        raise click.UsageError("Give either --epochs or --steps, and not both.")
    found = calibrate_noise(adjacency=Adjacency(adjacency), **settings)
    if as_json:
        terminal.show_json(_document(found, settings))
    else:
        terminal.show_facts(title="Calibrated noise", facts=_facts(found, settings))


def _document(found: Calibration, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "noise_multiplier": found.noise_multiplier,
        **found.guarantee.to_json(),
        "steps": found.steps,
        "sample_rate": found.sample_rate,
        "sampling": found.sampling,
        "dataset_size": settings["dataset_size"],
        "batch_size": settings["batch_size"],
        "target_epsilon": settings["epsilon"],
        "event": event_to_json(event=found.event),
    }


def _facts(found: Calibration, settings: dict[str, Any]) -> list[tuple[str, str]]:
    promise, size, batch = found.guarantee, settings["dataset_size"], settings["batch_size"]
    sigma, rate = rounded_up(found.noise_multiplier, digits=6), f"{found.sample_rate:.6g}"
    return [
        ("noise multiplier σ", sigma),
        ("steps T", str(found.steps)),
        ("sampling probability q", f"{rate} = {batch}/{size}"),
        *promise_rows(promise),
        ("sampling", f"{found.sampling}: shuffled batches would not be covered"),
        (
            "to use it",
            f"run exactly {found.steps} steps; in each, draw every {promise.unit} with "
            f"probability q, clip its gradient to norm C, and add noise of standard deviation "
            f"{sigma}·C once to the sum",
        ),
    ]
