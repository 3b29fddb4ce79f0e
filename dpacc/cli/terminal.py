"""All that the commands show: data on stdout, messages on stderr, colour where it is welcome."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_facts(*, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print a table of names and values on stdout."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(escape(name), escape(value))
    Console().print(table)


def show_markdown(text: str) -> None:
    """Print Markdown on stdout: rendered for a person, as it is for a file or a pipe."""
    if sys.stdout.isatty():
        from rich.markdown import Markdown  # a slow import that no other command needs

        Console().print(Markdown(text))
    else:
        print(text, end="")


def show_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; no number in it is NaN or infinite."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def say(message: str) -> None:
    """Print a message on stderr."""
    Console(stderr=True).print(escape(message), highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error, on one line of stderr."""
    line = " ".join(message.split())
    Console(stderr=True).print(
        f"[bold red]error:[/] {escape(line)}", highlight=False, soft_wrap=True
    )
