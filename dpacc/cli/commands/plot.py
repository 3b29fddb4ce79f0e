"""`dpacc plot`: a ledger or a plan, drawn."""

from pathlib import Path

import click
from dpacc_accounting import Guarantee, epsilon
from dpacc_accounting import delta as delta_at

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import options, terminal
from dpacc.cli.sources import Source, read_source

KINDS = ("spending", "profile", "attack")
_POINTS = 24


@click.command(short_help="Draw what a ledger or a plan spends, or what an attacker could learn.")
@options.source
@click.option(
    "--out",
    type=options.Picture(),
    required=True,
    help="Where the figure goes (PNG, PDF or SVG).",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="spending",
    show_default=True,
    help="ε against steps; δ against ε; or an attack's true against false positives.",
)
@options.delta
@options.settings
@options.as_json
def plot(
    source: Path,
    out: Path,
    kind: str,
    delta: float | None,
    settings: Path | None,
    as_json: bool,
) -> None:
    """Draw SOURCE, a ledger, a run's folder or a plan, as a figure for a paper or a review."""
    from dpacc.artifacts import pictures

    found = read_source(path=source, settings=settings)
    stated, form = found.guarantee(delta=delta), format_of(path=out)
    if kind == "spending":
        steps, spent = _spending(found, stated)
        budget = found.plan.get("target_epsilon")
        picture = pictures.draw_spending(
            steps=steps, epsilons=spent, budget=budget, guarantee=stated, form=form
        )
        points = [{"steps": at, "epsilon": value} for at, value in zip(steps, spent, strict=True)]
    else:
        curve = _profile(found, stated)
        draw = pictures.draw_attack if kind == "attack" else pictures.draw_profile
        picture = draw(curve=curve, stated=stated, form=form)
        points = [{"epsilon": each.epsilon, "delta": each.delta} for each in curve]
    options.write_picture(path=out, picture=picture)
    if as_json:
        terminal.show_json({"kind": kind, "path": str(out), **stated.to_json(), "points": points})
    else:
        terminal.say(f"wrote {out}")


def _spending(found: Source, stated: Guarantee) -> tuple[list[int], list[float]]:
    """ε after a few numbers of steps, dense where the curve bends."""
    total = found.steps
    steps = sorted({round(total * (at / _POINTS) ** 2) for at in range(1, _POINTS + 1)} - {0})
    spent = [
        epsilon(
            event=found.event_after(steps=at),
            delta=stated.delta,
            adjacency=stated.adjacency,
        ).epsilon
        for at in terminal.tracked(steps, message="pricing steps")
    ]
    return [0, *steps], [0.0, *spent]


def _profile(found: Source, stated: Guarantee) -> list[Guarantee]:
    """δ(ε) from ε = 0 to a little beyond what is stated."""
    marks = [1.3 * stated.epsilon * at / _POINTS for at in range(_POINTS + 1)]
    return [
        delta_at(event=found.event, epsilon=at, adjacency=stated.adjacency, unit=stated.unit)
        for at in terminal.tracked(marks, message="pricing the profile")
    ]
