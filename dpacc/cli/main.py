"""The `dpacc` command itself: it finds a subcommand, loads it alone, and words its errors."""

import os
import sys
from typing import NoReturn

import click
from dpacc_accounting.ledger.record import LedgerError

from dpacc import __version__
from dpacc.cli.encoding import write_in_any_encoding
from dpacc.cli.lazy_commands import LazyCommands
from dpacc.cli.plain_warnings import show_warnings_plainly
from dpacc.cli.subcommands.recipes import RECIPES
from dpacc.errors import DpaccError

COMMANDS = {
    "attack": "Attack a finished adapter: membership inference and exposure.",
    "audit": "Test a claimed ε with canaries, against the engine or any trainer.",
    "budget": "Keep one total for a data set, over all runs on it.",
    "calibrate": "Find the least noise that keeps training within a privacy budget.",
    "compose": "Price the rounds of a federation, client by client.",
    "dashboard": "Show runs, federations and budgets in a browser, as they go on.",
    "doctor": "Check that what ran, or would run, is what was accounted.",
    "explain": "State in words what a ledger or a plan guarantees.",
    "federate": "Propose the settings of a federation, and find its app.",
    "init": "Write a first configuration for a file of private data.",
    "merge-ledgers": "Compose the ledgers of several runs on the same data.",
    "plan": "Say what a run would need: memory, traffic, time, noise, launch.",
    "plot": "Draw what a ledger or a plan spends, or what an attacker could learn.",
    "report": "Write one document on what a run guarantees, for who reads no code.",
    "spend": "Price what a ledger says was really released.",
    "verify": "Recompute a ledger's or a plan's ε with independent code.",
}

STARTERS = {"run": "Start any recipe, by its name."} | {
    name: RECIPES[name] for name in ("evaluate", "merge", "predict", "synthesize", "train")
}
"""What starts a recipe, whose settings these are."""


@click.group(
    cls=LazyCommands,
    summaries=COMMANDS | STARTERS,
    rooms="dpacc.cli.commands.",
    elsewhere=dict.fromkeys(STARTERS, "dpacc.cli.subcommands.recipe_commands"),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="dpacc")
@click.pass_context
def dpacc(ctx: click.Context) -> None:
    """Plan, start, account for and explain differentially private training."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line: bad input is one line on stderr and exit code 2."""
    write_in_any_encoding()
    show_warnings_plainly()
    try:
        code = dpacc.main(prog_name="dpacc", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as mistake:
        where = mistake.ctx.command_path if mistake.ctx else "dpacc"
        _refuse(f"{mistake.format_message()} See '{where} --help'.")
    except (ValueError, DpaccError, LedgerError) as refusal:
        _refuse(str(refusal))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more while exiting.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code)


def _refuse(message: str) -> NoReturn:
    from dpacc.cli.terminal import complain

    complain(message)
    sys.exit(2)
