"""Tab completion comes from the command itself."""

import os
import subprocess
import sys

import pytest


def _completed(*words: str) -> set[str]:
    """What bash would be offered for the last of `words`."""
    done = subprocess.run(
        [sys.executable, "-c", "from dpacc.cli.main import main; main()"],
        env={
            **os.environ,
            "_DPACC_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["dpacc", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_commands_are_completed() -> None:
    """The beginning of a command offers those that begin with it."""
    assert _completed("ca") == {"calibrate"}
    assert {
        "explain",
        "spend",
        "verify",
        "merge-ledgers",
        "train",
        "plot",
        "compose",
    } <= _completed("")


def test_options_and_choices_are_completed() -> None:
    """The beginning of an option, and of one of its values, is completed."""
    assert _completed("calibrate", "--adj") == {"--adjacency"}
    assert _completed("calibrate", "--adjacency", "re") == {"replace-one"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    """The lines that the documentation shows print a script that defines the completion."""
    done = subprocess.run(
        [sys.executable, "-c", "from dpacc.cli.main import main; main()"],
        env={**os.environ, "_DPACC_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_dpacc_completion" in done.stdout
