"""`dpacc explain`: the privacy statement of a run, or of a plan."""

from pathlib import Path

import click
from dpacc_accounting import statement

from dpacc.cli import options, terminal
from dpacc.cli.sources import read_source


@click.command(short_help="State in words what a ledger or a plan guarantees.")
@options.source
@options.settings
@options.as_json
def explain(source: Path, settings: Path | None, as_json: bool) -> None:
    """State in Markdown what SOURCE guarantees, and what it does not.

    SOURCE is a ledger, whose releases are priced, or a plan in YAML or JSON, which is a promise.
    """
    found = read_source(path=source, settings=settings)
    words = statement(plan=found.plan, record=found.record)
    if as_json:
        head = found.record.head if found.record else None
        terminal.show_json({"statement": words, "plan": found.plan, "head": head})
    else:
        terminal.show_markdown(words)
