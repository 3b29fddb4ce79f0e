"""`dpacc federate`: what a federation needs before it starts."""

from importlib import import_module

import click

# Said here rather than in the commands, so that `dpacc federate --help` loads none of them.
COMMANDS = {
    "tune": "Propose rank, compression and noise for a budget and a line.",
}


class _LazyCommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"dpacc.cli.federate_{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_LazyCommands, short_help="Propose the settings of a federation.")
def federate() -> None:
    """Propose the settings of a federation, before anybody trains."""
