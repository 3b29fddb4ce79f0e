"""`dpacc merge-ledgers`: what several runs on the same data cost together."""

from pathlib import Path
from typing import Any

import click
import dpacc_accounting
from dpacc_accounting import MergedLedgers, event_to_json
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.cli.sources import read_record


@click.command("merge-ledgers", short_help="Compose the ledgers of several runs on the same data.")
@click.argument("ledgers", nargs=-1, required=True, type=options.LedgerOrPlan())
@options.delta
@options.settings
@options.as_json
def merge_ledgers(
    ledgers: tuple[Path, ...], delta: float | None, settings: Path | None, as_json: bool
) -> None:
    """Price all the releases in LEDGERS together, for whoever's data every run used.

    Copies of one run that went on apart count their common releases once, and each its own.
    """
    records = {
        str(path): read_record(path=path, settings=settings) for path in dict.fromkeys(ledgers)
    }
    if len(records) < len(ledgers):
        raise click.UsageError("The same ledger is named twice; name each run's once.")
    found = dpacc_accounting.merge_ledgers(records=records, delta=delta)
    if as_json:
        terminal.show_json(_document(found))
    else:
        terminal.show_table(
            title="Runs", columns=["ledger", "releases", "ε alone"], rows=_rows(records, found)
        )
        terminal.show_facts(title="Together", facts=_facts(found))


def _document(found: MergedLedgers) -> dict[str, Any]:
    return {
        "private": found.together is not None,
        **(found.together.to_json() if found.together else {"epsilon": None}),
        "void_because": list(found.faults),
        "ledgers": [
            {"path": name, **(part.to_json() if part else {"epsilon": None})}
            for name, part in found.parts.items()
        ],
        "remarks": list(found.remarks),
        "event": event_to_json(event=found.event),
    }


def _rows(records: dict[str, Any], found: MergedLedgers) -> list[list[str]]:
    return [
        [name, f"{len(records[name].releases):,}", rounded_up(part.epsilon) if part else "void"]
        for name, part in found.parts.items()
    ]


def _facts(found: MergedLedgers) -> list[tuple[str, str]]:
    remarks = [("note", remark) for remark in found.remarks]
    if found.together is None:
        reasons = "; ".join(found.faults) or "no finite ε holds"
        beside = "; ".join(note.text for note in found.notes if not note.voids)
        qualified = [("qualified", beside)] if beside else []
        return [("NOT private", reasons), *qualified, *remarks]
    apart = sum(part.epsilon for part in found.parts.values() if part)
    return [
        *guarantee_rows(found.together),
        ("sum of the parts", f"{rounded_up(apart, digits=6)}, which composition improves on"),
        *remarks,
    ]
