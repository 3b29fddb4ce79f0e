"""`dpacc audit`: what canaries prove about ε, next to what is claimed."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import options, terminal
from dpacc.cli.documents import read_document
from dpacc.cli.sources import read_source
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan

if TYPE_CHECKING:
    from dpacc.audit.verdict import Audit


@click.command(short_help="Test a claimed ε with canaries, against the engine or any trainer.")
@click.argument("source", nargs=-1, required=True, type=options.LedgerOrPlan())
@click.option("--epsilon", type=float, help="Claimed ε.  [default: what the file claims]")
@options.delta
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Chance that a run which keeps its claim is not accused.",
)
@click.option(
    "--canaries",
    type=click.IntRange(min=2),
    help="Canaries in the rehearsal of a plan.  [default: all examples, up to 10,000]",
)
@options.plot
@options.as_json
def audit(
    source: tuple[Path, ...],
    epsilon: float | None,
    delta: float | None,
    confidence: float,
    canaries: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Test the ε that each SOURCE claims.

    SOURCE is a file of scores (JSON: "included", a list of 0 or 1; "scores", a list of numbers,
    the higher the more present; and "epsilon" with "delta", or a "plan") from any trainer; or a
    plan or a ledger, which the real engine then carries out on canaries alone. Several files of
    scores are of all the runs that one plan had, each with coins of its own.

    Exits with 1 where the claim cannot be true.
    """
    from dpacc.audit.wording import audit_rows

    scores = _scores_in(source)
    if scores is None:
        found = _rehearsed(source[0], epsilon, delta, confidence, canaries)
    else:
        from dpacc.audit.records import judge_recorded

        if canaries is not None:
            raise ConfigurationError("--canaries is for plans; a file of scores has its own")
        found = judge_recorded(document=scores, epsilon=epsilon, delta=delta, confidence=confidence)
    if plot is not None:
        with options.training_stack():
            from dpacc.audit.picture import draw_audit

            picture = draw_audit(audit=found, form=format_of(path=plot))
        options.write_picture(path=plot, picture=picture)
    if as_json:
        terminal.show_json(found.to_json())
    else:
        terminal.show_facts(title="Audit", facts=audit_rows(found))
    sys.exit(1 if found.refuted else 0)


def _scores_in(sources: tuple[Path, ...]) -> dict[str, object] | None:
    """What all runs scored; None of a plan or a ledger."""
    documents = [_document(source) for source in sources]
    if documents == [None]:
        return None
    scored = [each for each in documents if each is not None]
    if len(scored) < len(sources):
        raise ConfigurationError(
            "several sources are the scores of one plan's runs; give a plan or a ledger alone"
        )
    from dpacc.audit.records import of_all_runs

    return scored[0] if len(scored) == 1 else of_all_runs(documents=scored)


def _document(source: Path) -> dict[str, object] | None:
    if source.suffix == ".jsonl":
        return None
    document = read_document(path=source, wanted="a file of scores, a plan or a ledger")
    return dict(document) if {"scores", "included"} & document.keys() else None


def _rehearsed(
    source: Path,
    epsilon: float | None,
    delta: float | None,
    confidence: float,
    canaries: int | None,
) -> Audit:
    if epsilon is not None or delta is not None:
        raise ConfigurationError("a plan claims its own ε at its own δ; leave them out")
    books = read_source(path=source)
    plan = PrivacyPlan.from_json(books.plan)
    with options.training_stack():
        from dpacc.audit.rehearsal import rehearse

    found = rehearse(
        plan=plan,
        canaries=canaries,
        confidence=confidence,
        tracked=partial(terminal.tracked, message="rehearsing the plan"),
    )
    return found if books.record is None else replace(found, notes=books.record.notes)
