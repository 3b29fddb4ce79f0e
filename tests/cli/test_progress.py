"""Progress shows on a terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest

COMMAND = [
    sys.executable, "-m", "dpacc", "calibrate", "--delta", "1e-5", "--dataset-size", "1000",
    "--batch-size", "10", "--sweep", "epsilon=1,2,4", "steps=50",
]  # fmt: skip


def _stderr_on_a_terminal() -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.DEVNULL, stderr=theirs, stdin=theirs, env=environment
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
    assert process.wait(timeout=60) == 0
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_sweep_shows_a_bar_on_a_terminal() -> None:
    """A person who waits sees how far the sweep is."""
    shown = _stderr_on_a_terminal()
    assert "calibrating" in shown
    assert "/3" in shown


def test_a_log_gets_no_bar() -> None:
    """A pipe gets the table on stdout and nothing on stderr."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Calibrated noise" in done.stdout
