"""The command that starts a recipe: this interpreter, or `accelerate launch`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from dpacc.cli.subcommands.recipes import LAUNCHED, launch_file, script_of
from dpacc.errors import ConfigurationError

_ACCELERATE = ("-m", "accelerate.commands.accelerate_cli", "launch")


def line_for(*, recipe: str, launch: str | None, settings: Sequence[str]) -> list[str]:
    """The words of the command; the first is the program.

    Args:
        recipe: its name.
        launch: a launch configuration, by its name or its file, and options of `accelerate launch`
            after it; None starts one process.
        settings: of the recipe.

    Raises:
        ConfigurationError: there is no such recipe or launch configuration, or the recipe is for
            one process.

    >>> line = line_for(recipe="train", launch="ddp --num_processes 2", settings=["--epsilon", "8"])
    >>> [word.rpartition("/")[2] for word in line[4:]]
    ['--config_file', 'ddp.yaml', '--num_processes', '2', 'train.py', '--epsilon', '8']
    """
    script = str(script_of(recipe=recipe))
    if launch is None:
        return [sys.executable, script, *settings]
    if recipe not in LAUNCHED:
        raise ConfigurationError(
            f"{recipe} is one process: leave --launch out, which is for {', '.join(LAUNCHED)}"
        )
    name, *options = shlex.split(launch) or [launch]
    file = str(launch_file(name=name))
    return [sys.executable, *_ACCELERATE, "--config_file", file, *options, script, *settings]


def as_typed(line: Sequence[str]) -> str:
    """The command as a person would type it.

    >>> as_typed(["/usr/bin/python3.11", "recipes/train.py", "--name", "a b"])
    "python recipes/train.py --name 'a b'"
    """
    launched = tuple(line[1:4]) == _ACCELERATE
    words = ["accelerate", "launch", *line[4:]] if launched else ["python", *line[1:]]
    return shlex.join(words)
