"""The command itself: help, versions, streams, and errors of one line."""

import subprocess
import sys
from collections.abc import Iterator

import click

import dpacc as package
from dpacc.cli.main import COMMANDS, STARTERS
from dpacc.cli.main import dpacc as group


def named(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def test_version(dpacc) -> None:
    """The version is the package's."""
    assert dpacc("--version").out == f"dpacc, version {package.__version__}\n"


def test_help_names_every_command(dpacc) -> None:
    """Help, long or short or by saying nothing, lists each command with what it does."""
    long = dpacc("--help")
    assert long.code == 0
    assert long == dpacc("-h") == dpacc()
    assert COMMANDS
    for name, purpose in (COMMANDS | STARTERS).items():
        assert f"{name}  " in long.out
        assert purpose in " ".join(long.out.split())


def test_each_command_says_what_the_list_says() -> None:
    """The listed purpose, kept apart so that help loads nothing, is the command's own."""
    for name, purpose in (COMMANDS | STARTERS).items():
        assert named(name).short_help == purpose


def test_help_loads_no_command() -> None:
    """`dpacc --help` imports neither a command nor numpy nor rich."""
    code = (
        "import sys; sys.argv = ['dpacc', '--help']\n"
        "from dpacc.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded:', *{'numpy', 'rich', 'dpacc.cli.commands.calibrate'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Commands:" in done.stdout
    assert done.stdout.endswith("loaded:\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`dpacc ... | head -0` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dpacc", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, complaint = process.communicate(timeout=600)
    assert complaint == b""
    assert process.returncode == 1


def test_unknown_words_are_one_line(dpacc) -> None:
    """A misspelt command or option is one line on stderr that says where to look."""
    for words in (["calibrat"], ["calibrate", "--epsilom", "3"], ["--loud"]):
        outcome = dpacc(*words)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.count("\n") == 1
        assert words[-1] in outcome.err or words[-2] in outcome.err
        assert "--help" in outcome.err


def test_every_command_speaks_json() -> None:
    """Each command, also of a group, has --json for scripts, and its help says what it takes."""
    for command in _leaves():
        options = {option for each in command.params for option in each.opts}
        assert "--json" in options, command.name
        assert command.help is not None
        assert len(command.help.splitlines()[0]) > 20


def _leaves() -> Iterator[click.Command]:
    """Every command that does something, those of groups included."""
    for name in COMMANDS:
        command = named(name)
        if not isinstance(command, click.Group):
            yield command
            continue
        context = click.Context(command)
        members = [command.get_command(context, each) for each in command.list_commands(context)]
        assert members
        yield from (each for each in members if each is not None)
