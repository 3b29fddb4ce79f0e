"""`dpacc federate`: what a federation needs before it starts."""

import click

from dpacc.cli.lazy_commands import LazyCommands

COMMANDS = {
    "app": "Say where the app of deployed federations is.",
    "tune": "Propose rank, compression and noise for a budget and a line.",
}


@click.group(
    cls=LazyCommands,
    summaries=COMMANDS,
    rooms="dpacc.cli.subcommands.federate_",
    short_help="Propose the settings of a federation, and find its app.",
)
def federate() -> None:
    """Propose the settings of a federation, before anybody trains."""
