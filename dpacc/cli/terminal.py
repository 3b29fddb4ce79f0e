"""All that the commands show: data on stdout, messages on stderr, colour where it is welcome."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Self, TypeVar

from dpacc_accounting.guarantee import Guarantee, Note, rounded_up
from dpacc_accounting.ledger.record import LedgerError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dpacc.cli.encoding import write_in_any_encoding
from dpacc.cli.last_word import say_after_the_launcher
from dpacc.cli.notebook import NotebookBar
from dpacc.cli.plain_warnings import show_warnings_plainly
from dpacc.errors import DpaccError

write_in_any_encoding()

Item = TypeVar("Item")


def show_facts(*, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print a table of names and values on stdout."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(escape(name), escape(value))
    _print_below(title, table)


def show_table(*, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: names to the left, numbers to the right."""
    table = Table(box=None, padding=(0, 2))
    for at, column in enumerate(columns):
        table.add_column(
            escape(column), overflow="fold", justify="right" if at else "left", header_style="bold"
        )
    for row in rows:
        table.add_row(*map(escape, row))
    _print_below(title, table)


def _print_below(title: str, table: Table) -> None:
    """A title may be a path that somebody copies: it is not cut to the table's width."""
    console = Console()
    console.print(title, style="table.title", soft_wrap=True, highlight=False)
    console.print(table)


@contextmanager
def at_work(message: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something takes a while; elsewhere, nothing.

    What it yields says how far it is, behind the message.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(escape(message)) as status:
        yield lambda doing: status.update(escape(f"{message}: {doing}"))


@contextmanager
def others_on_stderr() -> Iterator[None]:
    """Keep what other libraries print or log meanwhile away from stdout, which holds a document."""
    with redirect_stdout(sys.stderr):
        yield


def tracked(items: Sequence[Item], *, message: str) -> Iterator[Item]:
    """The items one by one, with a progress bar on a terminal and nothing elsewhere."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        yield from bar.track(items, description=escape(message))


@contextmanager
def counted(*, total: int, message: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """How many of `total` are done and how long the rest takes, on a terminal; lines elsewhere.

    What it yields is told how many are done; a log hears of it at each tenth, a notebook has a bar.
    Only for work on what is public: how long private work takes may tell of it.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(escape(message), total=total, completed=done)
    said = [10 * done // total]
    cell = NotebookBar(total=total) if console.is_jupyter else None

    def show(count: int) -> None:
        bar.update(task, completed=count)
        if cell is not None:
            cell.show(done=count, words=f"{count}/{total} {message}")
        elif not console.is_terminal and 10 * count // total > said[0]:
            said[0] = 10 * count // total
            say(f"{count}/{total} {message}")

    with bar:
        yield show


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


def show_line(text: str) -> None:
    """Print one line on stdout as it is, for a shell to take."""
    print(text)


def say(message: str) -> None:
    """Print a message on stderr."""
    Console(stderr=True).print(escape(message), highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error, on one line of stderr."""
    line = " ".join(message.split())
    Console(stderr=True).print(
        f"[bold red]error:[/] {escape(line)}", highlight=False, soft_wrap=True
    )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person should read into one line on stderr and exit code 2.

    Each rank of a distributed run says which it is, for the others may not have failed. Under a
    launcher that adds words of its own, the line comes once more after them.
    """
    show_warnings_plainly()
    try:
        yield
    except (DpaccError, LedgerError, ValueError, OSError) as refusal:
        rank = f"[rank {os.environ['RANK']}] " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        complain(f"{rank}{refusal}")
        say_after_the_launcher(f"error: {rank}{' '.join(str(refusal).split())}")
        sys.exit(2)


class TrainingProgress:
    """Steps done, ε spent of its budget, and on a terminal how fast and how long.

    A bar on a terminal or in a notebook, plain lines in a log, nothing on other ranks. Rates use
    the expected batch size: the actual sizes are private. A log and a notebook are told no times,
    for they are shared, and how long a step took follows its actual size.

    Args:
        steps: logical steps in all.
        epsilon_budget: the ε that the last step reaches.
        expected_batch_size: examples a step holds on average.
        visible: whether this rank shows anything.
        done: steps done before, by the run that is resumed.
    """

    def __init__(
        self,
        *,
        steps: int,
        epsilon_budget: float,
        expected_batch_size: int,
        visible: bool,
        done: int = 0,
    ) -> None:
        self._first = done
        self._budget = epsilon_budget
        self._batch = expected_batch_size
        self._visible = visible
        self._told: set[Note] = set()
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not visible or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=done)
        self._cell = NotebookBar(total=steps) if visible and self._console.is_jupyter else None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, *, guarantee: Guarantee) -> None:
        """One more step is done, and `guarantee` is what all until now amount to.

        What voids or qualifies it is said in full once, and of that it does on every line.
        """
        for note in dict.fromkeys(guarantee.notes):
            if note not in self._told:
                self._told.add(note)
                self.note(f"{'NOT private' if note.voids else 'ε is qualified'}: {note.text}")
        task = self._bar.tasks[self._task]
        done = int(task.completed) + 1
        spent = f"ε {rounded_up(guarantee.epsilon, digits=3)} of {self._budget:g}"
        if guarantee.void_because:
            spent = "NOT private"
        elif guarantee.qualified_by:
            spent = f"{spent}, qualified"
        self._bar.update(self._task, completed=done, description=f"{spent}  {self._rate(done)}")
        line = f"step {done}/{int(task.total or done)}  {spent}"
        if self._cell is not None:
            self._cell.show(done=done, words=line)
        elif self._visible and not self._console.is_terminal:
            say(line)

    def note(self, message: str) -> None:
        """Say something above the bar."""
        if self._visible:
            self._bar.console.print(escape(message), highlight=False, soft_wrap=True)

    def _rate(self, done: int) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return f"{self._batch * (done - self._first) / elapsed:.1f} expected examples/s"
