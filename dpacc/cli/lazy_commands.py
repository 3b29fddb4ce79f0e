"""A group of commands, none of which is loaded before it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyCommands(click.Group):
    """Finds the command `name` in the module whose name begins with `rooms` and ends with it.

    Args:
        summaries: each command's line in the help, said here so that none is loaded for it.
        rooms: such as "dpacc.cli.commands." or "dpacc.cli.subcommands.federate_".
        elsewhere: the modules of those commands that are in others, by their names.
        **group: what `click.Group` takes.
    """

    def __init__(
        self,
        *,
        summaries: Mapping[str, str],
        rooms: str,
        elsewhere: Mapping[str, str] | None = None,
        **group: Any,
    ) -> None:
        super().__init__(**group)
        self._summaries = summaries
        self._rooms = rooms
        self._elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, loaded now."""
        if cmd_name not in self._summaries:
            return None
        name = cmd_name.replace("-", "_")
        module = self._elsewhere.get(cmd_name, f"{self._rooms}{name}")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The summaries, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._summaries.items()))
