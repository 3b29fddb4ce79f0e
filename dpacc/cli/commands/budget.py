"""`dpacc budget`: one total for a data set, which every run on it asks before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from dpacc_accounting import (
    Adjacency,
    Budget,
    BudgetError,
    Guarantee,
    create_budget,
)
from dpacc_accounting.budget.record import STATES
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.report.data_set_budget import (
    ASSUMED,
    SHARE_COLUMNS,
    BudgetFacts,
    gather_budget,
    share_row,
)
from dpacc.cli.sources import read_source
from dpacc.plan import PrivacyPlan

_BUDGET = click.argument("budget", type=click.Path(path_type=Path, dir_okay=False))
_NOTED = 32
"""Digits of a line's hash that are shown."""


@click.group(short_help="Keep one total for a data set, over all runs on it.")
def budget() -> None:
    """Keep one total (ε, δ) for a data set: what runs reserved, and what they really spent."""


@budget.command(short_help="Make a data set's budget and its key.")
@_BUDGET
@click.option("--name", required=True, help="Of the data set.")
@click.option("--epsilon", type=float, required=True, help="The total ε.")
@click.option("--delta", type=float, required=True, help="The total δ.")
@click.option("--unit", default="example", show_default=True, help="Whose data is protected.")
@click.option(
    "--adjacency",
    type=click.Choice([str(each) for each in Adjacency]),
    default=str(Adjacency.ADD_OR_REMOVE),
    show_default=True,
    help="Which data sets are neighbours.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Its file or folder, of which a keyed fingerprint is kept and no row.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the secret key is kept.  [default: beside the data]",
)
@options.as_json
def init(
    budget: Path,
    name: str,
    epsilon: float,
    delta: float,
    unit: str,
    adjacency: str,
    data: Path | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Make the file BUDGET, and the key without which nobody is granted anything."""
    create_budget(
        path=budget,
        name=name,
        epsilon=epsilon,
        delta=delta,
        unit=unit,
        adjacency=adjacency,
        data=data,
        key=key,
    )
    _show(gather_budget(path=budget), as_json)


@budget.command(short_help="Say what is spent, reserved, and left.")
@_BUDGET
@click.option("--head", help="A head that was noted earlier: refuse a budget that lacks it.")
@options.as_json
def show(budget: Path, head: str | None, as_json: bool) -> None:
    """Show BUDGET's total, what each run holds of it, and its head, to be noted elsewhere."""
    facts = gather_budget(path=budget)
    if head is not None and not any(_noted(line, head) for line in facts.record.chain):
        raise BudgetError(f"budget {budget} lacks the line {head}: it was shortened or replaced")
    _show(facts, as_json)


@budget.command(short_help="Set a run's whole plan aside.")
@_BUDGET
@options.source
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The new run's ledger, where SOURCE is a plan.",
)
@options.as_json
def reserve(budget: Path, source: Path, ledger: Path | None, as_json: bool) -> None:
    """Reserve in BUDGET all that the run of SOURCE, a plan or a ledger, may release.

    The run then opens the same ledger with the same plan, and finds its reservation.
    """
    found = read_source(path=source)
    if (found.record is None) == (ledger is None):
        raise click.UsageError("Name a plan and its new --ledger, or a ledger alone.")
    place = source if ledger is None else ledger
    planned = PrivacyPlan.from_json(found.plan).event()
    with Budget(path=budget).open_ledger(path=place, plan=found.plan, planned=planned) as opened:
        run = opened.run
    _show_run(budget, run, as_json)


@budget.command(short_help="Replace a reservation by what was really spent.")
@_BUDGET
@click.argument("ledgers", nargs=-1, required=True, type=options.LedgerOrPlan())
@options.as_json
def commit(budget: Path, ledgers: tuple[Path, ...], as_json: bool) -> None:
    """Count in BUDGET what a run's ledger says it released, whether it ended or died.

    Several LEDGERS are copies of one run's that went on apart.
    """
    _show_run(budget, Budget(path=budget).commit(ledgers=ledgers).run, as_json)


@budget.command(short_help="Give a reservation back of which nothing was spent.")
@_BUDGET
@click.argument("run")
@click.option(
    "--ledger",
    type=options.LedgerOrPlan(),
    help="The run's ledger, if it is not where it was.",
)
@click.option(
    "--no-step-was-taken",
    is_flag=True,
    help="Your word for a run whose ledger is lost; it is recorded.",
)
@options.as_json
def release(
    budget: Path, run: str, ledger: Path | None, no_step_was_taken: bool, as_json: bool
) -> None:
    """Give back to BUDGET what RUN reserved, if its ledger holds no charge."""
    given_back = Budget(path=budget).release(
        run=run, ledger=ledger, no_step_was_taken=no_step_was_taken
    )
    _show_run(budget, given_back.run, as_json)


def _show_run(path: Path, run: str, as_json: bool) -> None:
    facts = gather_budget(path=path)
    if as_json:
        terminal.show_json(_document(facts) | {"run": run})
        return
    terminal.say(f"run {run}: {facts.record.shares[run].state}")
    _show(facts, as_json)


def _show(facts: BudgetFacts, as_json: bool) -> None:
    if as_json:
        terminal.show_json(_document(facts))
        return
    if facts.alone:
        terminal.show_table(
            title="Runs",
            columns=SHARE_COLUMNS,
            rows=[share_row(share, alone) for share, alone in facts.alone],
        )
    terminal.show_facts(title="Budget", facts=_rows(facts))


def _document(facts: BudgetFacts) -> dict[str, Any]:
    record = facts.record
    return {
        "budget": record.budget,
        "name": record.name,
        "fingerprint": record.fingerprint,
        "total_epsilon": record.epsilon,
        "total_delta": record.delta,
        "adjacency": str(record.adjacency),
        "unit": record.unit,
        "within_total": facts.within,
        "held": facts.held.to_json(),
        "spent": facts.spent.to_json(),
        "runs": [
            {
                "run": share.run,
                "state": share.state,
                **alone.to_json(),
                "ledgers": dict(share.ledgers),
                "said": share.said,
            }
            for share, alone in facts.alone
        ],
        "holds_if": ASSUMED,
        "head": record.head,
        "torn": record.torn,
    }


def _rows(facts: BudgetFacts) -> list[tuple[str, str]]:
    record = facts.record
    count = {state: len(record.holding(state)) for state in STATES}
    over = "" if facts.within else ": OVER the total, nothing is granted"
    compared = "by its keyed fingerprint" if record.fingerprint else "not compared: none was named"
    return [
        ("data set", record.name),
        ("data", compared),
        ("total", f"ε = {record.epsilon:g} at δ = {record.delta:g}"),
        ("adjacency", str(record.adjacency)),
        ("privacy unit", record.unit),
        ("spent", f"{_epsilon(facts.spent)}, by {count['committed']} runs that are committed"),
        ("held", f"{_epsilon(facts.held)}, with {count['reserved']} more that are reserved{over}"),
        ("holds if", ASSUMED),
        ("head", record.head[:_NOTED]),
    ]


def _noted(line: str, head: str) -> bool:
    return len(head) >= _NOTED and line.startswith(head)


def _epsilon(found: Guarantee) -> str:
    return str(found) if found.void_because else f"ε = {rounded_up(found.epsilon, digits=6)}"
