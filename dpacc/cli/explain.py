"""`dpacc explain`: the privacy statement of a run."""

from pathlib import Path

import click
from dpacc_accounting import read_ledger, statement

from dpacc.cli import options, terminal


@click.command(short_help="State in words what the releases in a ledger guarantee.")
@options.ledger
@options.as_json
def explain(ledger: Path, as_json: bool) -> None:
    """State in Markdown what the releases in LEDGER guarantee, and what they do not."""
    record = read_ledger(path=ledger)
    words = statement(plan=record.plan, record=record)
    if as_json:
        terminal.show_json({"statement": words, "plan": record.plan, "head": record.head})
    else:
        terminal.show_markdown(words)
