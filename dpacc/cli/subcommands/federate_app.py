"""`dpacc federate app`: where the Flower App of this installation is."""

import click

from dpacc.cli import options, terminal
from dpacc.cli.subcommands.recipes import federation_app


@click.command()
@options.as_json
def app(as_json: bool) -> None:
    """Print the folder of the Flower App that deployed federations run.

    It is what a SuperNode's --app reviews, and what `flwr run` starts: three short files to read.
    """
    folder = str(federation_app().resolve())
    if as_json:
        terminal.show_json({"app": folder})
    else:
        terminal.show_line(folder)
