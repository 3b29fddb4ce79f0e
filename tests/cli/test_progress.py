"""Progress shows on a terminal, and nowhere else."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

COMMAND = [
    sys.executable, "-m", "dpacc", "calibrate", "--delta", "1e-5", "--dataset-size", "1000",
    "--batch-size", "10", "--sweep", "epsilon=1,2,4", "steps=50",
]  # fmt: skip

TRAINING = """
from dataclasses import replace

from dpacc_accounting import Gaussian, epsilon
from dpacc.cli.terminal import TrainingProgress

once = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
for visible in (False, True):
    progress = TrainingProgress(
        steps=3, epsilon_budget=8.0, expected_batch_size=10, visible=visible, done=1
    )
    progress.note(f"shown {visible}")
    with progress:
        for spent in (5.5, 7.5):
            progress.advance(guarantee=replace(once, epsilon=spent))
"""


def _stderr_on_a_terminal(command: Sequence[str]) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux says so when the other end has closed.
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=600) == 0
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_sweep_shows_a_bar_on_a_terminal() -> None:
    """A person who waits sees how far the sweep is."""
    shown = _stderr_on_a_terminal(COMMAND)
    assert "calibrating" in shown
    assert "/3" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_training_shows_one_bar_on_a_terminal() -> None:
    """A person sees steps, ε of its budget and the time left in one bar, not in a log's lines; a
    rank that is not the main one shows nothing."""
    shown = _stderr_on_a_terminal([sys.executable, "-c", TRAINING])
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "shown True" in plain
    assert "shown False" not in plain
    last = [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]
    assert re.search(r"^step 3/3 ━+ ε 7\.5 of 8 +\d+\.\d expected examples/s .*left", last)
    assert "step 2/3  ε" not in plain  # as a log has it
    assert "\x1b[?25l" in shown  # the cursor hides while the bar moves,
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # and comes back


def test_a_log_gets_no_bar() -> None:
    """A pipe gets the table on stdout and nothing on stderr."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Calibrated noise" in done.stdout
