"""Greek letters never stop a command, whatever the terminal or pipe can show."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from dpacc_accounting import Gaussian, epsilon

from dpacc.cli import terminal
from dpacc.cli.encoding import write_in_any_encoding


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1", "utf-8"])
def test_what_is_shown_can_be_encoded(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts, tables, progress, JSON and messages reach pipes of every encoding whole."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    write_in_any_encoding()
    terminal.show_facts(title="σ ≤ 1", facts=[("ε", "8 at δ = 1e-5"), ("é", "½ — “so”")])
    terminal.show_table(title="⌈q⌉", columns=["ε"], rows=[["∞"]])
    terminal.show_json({"ε": "δ"})
    terminal.show_markdown("# ε\n")
    terminal.complain("σ = 0 … 日本")
    once = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    progress = terminal.TrainingProgress(
        steps=1, epsilon_budget=8.0, expected_batch_size=2, visible=True
    )
    with progress:
        progress.note("ε → 8")
        progress.advance(guarantee=once)
    shown = []
    for stream in streams:
        stream.flush()
        shown.append(stream.buffer.getvalue().decode(encoding))
    assert ("epsilon" if encoding in ("ascii", "cp1252", "latin-1") else "ε") in shown[0]
    assert "step 1/1" in shown[1]


def test_a_command_runs_where_nothing_but_ascii_is_written() -> None:
    """`PYTHONIOENCODING=ascii`, as on pipes of old systems: words, no traceback, exit code 0."""
    words = "calibrate --epsilon 8 --delta 6e-4 --dataset-size 1000 --batch-size 100 --epochs 1"
    finished = subprocess.run(
        [sys.executable, "-m", "dpacc", *words.split()],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "noise multiplier sigma" in finished.stdout.decode("ascii")
    told = finished.stderr.decode("ascii")
    assert told.startswith("warning: delta=0.0006 is more than 0.000501")
    assert "epsilon may fail" in told
    assert told.count("\n") == 1
