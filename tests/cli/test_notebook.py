"""A notebook has one bar for a run, however many steps it takes, and is told no times."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import IPython.display
import pytest
import rich.console
from dpacc_accounting import Gaussian, epsilon

from dpacc.cli import terminal


class Output:
    """Where a cell shows something, and what it showed there, oldest first."""

    def __init__(self, drawn: dict[str, str]) -> None:
        self.drawn = [drawn]

    def update(self, drawn: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.drawn.append(drawn)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """All outputs of a cell that runs here."""
    made: list[Output] = []

    def display(drawn: dict[str, str], *, raw: bool, display_id: bool) -> Output:
        assert (raw, display_id) == (True, True)
        made.append(Output(drawn))
        return made[-1]

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(IPython.display, "display", display)
    return made


def train(*, visible: bool = True) -> None:
    once = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    progress = terminal.TrainingProgress(
        steps=300, epsilon_budget=8.0, expected_batch_size=10, visible=visible
    )
    with progress:
        for step in range(300):
            progress.advance(guarantee=replace(once, epsilon=(step + 1) / 40))


def test_a_run_is_one_output(outputs: list[Output], capsys: pytest.CaptureFixture[str]) -> None:
    """Rewritten at each step, and full at the end; no step has a line of its own."""
    train()
    (only,) = outputs
    assert len(only.drawn) == 300
    last: Any = only.drawn[-1]
    assert '<progress value="300" max="300">' in last["text/html"]
    assert last["text/plain"] == "step 300/300  ε 7.5 of 8"
    assert "step" not in "".join(capsys.readouterr())


def test_a_notebook_is_told_no_times(outputs: list[Output]) -> None:
    """Neither rates nor seconds: it is saved and passed on, and they follow the batches' sizes."""
    train()
    shown = [text for each in outputs for drawn in each.drawn for text in drawn.values()]
    assert len(shown) == 600
    assert not [text for text in shown if re.search(r"/s\b|\d:\d\d", text)]


def test_other_ranks_show_nothing(outputs: list[Output]) -> None:
    """One rank speaks for all."""
    train(visible=False)
    assert outputs == []


def test_public_work_has_a_bar_too(outputs: list[Output]) -> None:
    """What is counted is shown in one output, in words that cannot become tags."""
    with terminal.counted(total=2, message="texts <b>") as show:
        show(1)
        show(2)
    (only,) = outputs
    assert [drawn["text/plain"] for drawn in only.drawn] == ["1/2 texts <b>", "2/2 texts <b>"]
    assert "texts &lt;b&gt;" in only.drawn[-1]["text/html"]
