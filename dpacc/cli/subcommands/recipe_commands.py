"""`dpacc run RECIPE`, and `dpacc train` and others for short: they become the recipe's process."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

import click

from dpacc.cli import terminal
from dpacc.cli.subcommands.launch_line import as_typed, line_for
from dpacc.cli.subcommands.recipes import LAUNCHED, RECIPES
from dpacc.errors import ConfigurationError

# All but --launch is the recipe's own, its --help as well.
_PASSED_ON: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": []}
_SETTINGS = click.argument("settings", nargs=-1, type=click.UNPROCESSED)
_LAUNCH = click.option(
    "--launch",
    metavar="NAME",
    help="Start it by `accelerate launch`: cpu, ddp, fsdp2, ..., or a file, and its options.",
)


def become(recipe: str, launch: str | None, settings: tuple[str, ...]) -> None:
    """Run a recipe in the place of this process, after showing the command.

    Raises:
        ConfigurationError: there is no such recipe, or nothing that it could train with.
    """
    line = line_for(recipe=recipe, launch=launch, settings=settings)
    if find_spec("torch") is None or find_spec("accelerate") is None:
        raise ConfigurationError(
            f"{recipe} needs torch and accelerate, which are not installed; "
            "pip install 'dpacc[train]'"
        )
    terminal.say(f"$ {as_typed(line)}")
    sys.stdout.flush()
    os.execv(line[0], line)


@click.command(
    short_help="Start any recipe, by its name.", context_settings={"ignore_unknown_options": True}
)
@click.argument("recipe", type=click.Choice(sorted(RECIPES)))
@_SETTINGS
@_LAUNCH
def run(recipe: str, settings: tuple[str, ...], launch: str | None) -> None:
    """Start RECIPE with SETTINGS, which are its own: `dpacc run RECIPE -- --help` lists them."""
    become(recipe, launch, settings)


def _short(recipe: str) -> click.Command:
    @click.command(name=recipe, short_help=RECIPES[recipe], context_settings=_PASSED_ON)
    @_SETTINGS
    def command(settings: tuple[str, ...], launch: str | None = None) -> None:
        become(recipe, launch, settings)

    command.help = f"{RECIPES[recipe]} `--help` lists the recipe's own settings."
    return _LAUNCH(command) if recipe in LAUNCHED else command


train, evaluate, predict, synthesize = map(_short, ("train", "evaluate", "predict", "synthesize"))


@click.command(short_help=RECIPES["merge"], context_settings=_PASSED_ON)
@_SETTINGS
def merge(settings: tuple[str, ...]) -> None:
    """Merge a finished adapter into its base: one model. `--help` lists the settings."""
    if settings and not settings[0].startswith("-"):
        raise ConfigurationError(
            f"ledgers are composed by `dpacc merge-ledgers {' '.join(settings)}`; an adapter is "
            "merged by `dpacc merge --adapter FOLDER --output FOLDER`"
        )
    become("merge", None, settings)
