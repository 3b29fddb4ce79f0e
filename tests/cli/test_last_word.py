"""What went wrong is the last thing on the screen, whatever a launcher adds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")

RANK = """
import sys
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
with terminal.one_line_errors():
    raise ConfigurationError("no such file")
"""
LAUNCHER = f"""
import subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-c", {RANK!r}]) for _ in range(int(sys.argv[1]))]
codes = [rank.wait() for rank in ranks]
sys.stderr.write("launcher: a long story\\n")
sys.exit(codes[0])
"""


def launch(ranks: int, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    finished = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(ranks), *arguments],
        env={k: v for k, v in os.environ.items() if k not in LAUNCHERS} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stderr.splitlines()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no other system tells of a process' end")
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_error_comes_once_more_after_the_launchers_words(ranks: int) -> None:
    """Each rank says it at once, and one of them after the launcher has ended."""
    code, lines = launch(ranks, TORCHELASTIC_RUN_ID="x")
    assert code == 2
    assert lines == ["error: no such file"] * ranks + [
        "launcher: a long story",
        "error: no such file",
    ]


@pytest.mark.parametrize(
    ("arguments", "environment"), [([], {}), (["--quiet"], {"TORCHELASTIC_RUN_ID": "x"})]
)
def test_it_comes_once_where_no_launcher_speaks(
    arguments: list[str], environment: dict[str, str]
) -> None:
    """Without a launcher, or with one that is told to be quiet, nothing is repeated."""
    _, lines = launch(1, *arguments, **environment)
    assert lines == ["error: no such file", "launcher: a long story"]


def test_accelerate_launch_ends_with_the_recipes_line() -> None:
    """The traceback of `accelerate launch` stands above it."""
    recipe = [
        "recipes/train.py",
        "--epsilon",
        "-1",
        "--model",
        "m",
        "--train_data",
        "d.jsonl",
        "--steps=1",
        "--expected_batch_size=1",
    ]
    config = ["--config_file", "launch_configs/cpu.yaml"]
    finished = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *config, *recipe],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0
    assert "CalledProcessError" in finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: epsilon=-1")
