"""`dpacc spend`: what a ledger's releases cost."""

from pathlib import Path
from typing import Any

import click
from dpacc_accounting import Guarantee, LedgerRecord
from dpacc_accounting.ledger.claims import what_holds

from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.cli.sources import read_record


@click.command(short_help="Price what a ledger says was really released.")
@options.ledger
@options.delta
@options.settings
@options.as_json
def spend(ledger: Path, delta: float | None, settings: Path | None, as_json: bool) -> None:
    """Price the releases that LEDGER holds, whatever was planned."""
    record = read_record(path=ledger, settings=settings)
    spent, faults = what_holds(plan=record.plan, record=record, delta=delta)
    if as_json:
        terminal.show_json(_document(record, spent, faults))
    else:
        terminal.show_facts(title="Privacy spent", facts=_facts(record, spent, faults))


def _document(record: LedgerRecord, spent: Guarantee | None, faults: list[str]) -> dict[str, Any]:
    stated = spent.to_json() if spent else {"epsilon": None}
    return {
        "private": spent is not None,
        **stated,
        "void_because": faults,
        "releases": len(record.releases),
        "planned_steps": record.plan.get("steps"),
        "torn": record.torn,
        "head": record.head,
    }


def _facts(
    record: LedgerRecord, spent: Guarantee | None, faults: list[str]
) -> list[tuple[str, str]]:
    planned = f" of {record.plan['steps']} planned" if "steps" in record.plan else ""
    facts = [("releases", f"{len(record.releases)}{planned}")]
    if spent is None:
        return [*facts, ("NOT private", "; ".join(faults))]
    return [*facts, *guarantee_rows(spent)]
