"""Where a run stands is in its folder line by line, and a resumed run goes on with the lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dpacc.artifacts.kept.metrics import METRICS_FILE, Course, read_metrics
from dpacc.artifacts.progress_chart import Measurement
from dpacc.errors import ConfigurationError

STOOD = [
    Measurement(step=0, epsilon=0.0, quality=0.5, metric="accuracy"),
    Measurement(step=1, epsilon=0.25, metric="accuracy"),
    Measurement(step=2, epsilon=0.5, quality=0.75, metric="accuracy"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The lines of three steps."""
    course = Course(folder=tmp_path, start=0, writes=True)
    for each in STOOD:
        course.add(each)
        assert read_metrics(path=tmp_path / METRICS_FILE)[-1] == each
    return tmp_path / METRICS_FILE


def test_a_resumed_run_takes_the_place_of_what_it_takes_again(path: Path) -> None:
    """Lines from its first step on are dropped, with one that was cut off; earlier ones stay."""
    with path.open("ab") as file:
        file.write(b'{"step": 3, "eps')
    assert read_metrics(path=path) == STOOD
    again = Course(folder=path.parent, start=2, writes=True)
    again.add(Measurement(step=2, epsilon=0.75, quality=0.5, metric="accuracy"))
    assert [each.epsilon for each in again.measurements] == [0, 0.25, 0.75]
    assert read_metrics(path=path) == list(again.measurements)


def test_one_process_writes(path: Path) -> None:
    """The others keep their course in memory."""
    before = path.read_bytes()
    other = Course(folder=path.parent, start=0, writes=False)
    other.add(STOOD[2])
    assert list(other.measurements) == STOOD[2:]
    assert path.read_bytes() == before


def test_what_is_not_finite_is_null_and_read_again(tmp_path: Path) -> None:
    """Strict JSON; an ε that nothing bounds stays unbounded, and a lost quality is none."""
    course = Course(folder=tmp_path, start=0, writes=True)
    course.add(Measurement(step=0, epsilon=math.inf, quality=math.nan))
    row = json.loads((tmp_path / METRICS_FILE).read_text())
    assert (row["epsilon"], row["quality"]) == (None, None)
    (found,) = read_metrics(path=tmp_path / METRICS_FILE)
    assert (found.epsilon, found.quality) == (math.inf, None)


def test_a_damaged_line_is_named(path: Path) -> None:
    """With what to do, and the file stays as it is."""
    damaged = path.read_text().replace('"step": 1', '"stop": 1')
    path.write_text(damaged)
    with pytest.raises(ConfigurationError, match=r"line 2 of .* move the file away"):
        Course(folder=path.parent, start=2, writes=True)
    assert path.read_text() == damaged
