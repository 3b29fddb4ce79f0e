"""`metrics.jsonl`: where a run stood after each step, a line a step, written as it goes on.

A line holds the step, ε and, where it was measured, held-out quality: what `run.json` and the
picture show of the finished run. It says nothing of when, for how long a step took follows what it
drew. Its ε is that of the charges alone: what voids or qualifies it stands in the ledger, and after
the run in `privacy.json`, and whoever shows it shows that too. A step's line is written after its
charge, so that no line is ahead of the ledger. Reading needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import replace_durably, sync_file

from dpacc.artifacts.progress_chart import Measurement
from dpacc.errors import ConfigurationError, disk_refusals_told

METRICS_FILE = "metrics.jsonl"
"""Of JSON lines, and no ledger: it charges nothing."""


class Course:
    """Where a run stands, step after step, in memory and in its folder's `metrics.jsonl`.

    A run that is resumed goes on with the file. Lines of the step that it begins after, and of
    later ones, which are taken again, give way to new ones.

    Args:
        folder: the run's.
        start: how many steps are done.
        writes: whether this process keeps the file; one of a run's processes does.

    Raises:
        ConfigurationError: a line of an earlier part is damaged, or the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     course = Course(folder=Path(folder), start=0, writes=True)
    ...     course.add(Measurement(step=0, epsilon=0.0, quality=9.5))
    ...     course.add(Measurement(step=1, epsilon=0.4))
    ...     print((Path(folder) / METRICS_FILE).read_text(), end="")
    {"step": 0, "epsilon": 0.0, "quality": 9.5, "metric": "perplexity"}
    {"step": 1, "epsilon": 0.4, "quality": null, "metric": "perplexity"}
    """

    def __init__(self, *, folder: Path, start: int, writes: bool) -> None:
        self._path = folder / METRICS_FILE if writes else None
        self._measurements: list[Measurement] = []
        if self._path is None:
            return
        if self._path.is_file():
            earlier = read_metrics(path=self._path)
            self._measurements = [each for each in earlier if each.step < start]
        with disk_refusals_told(self._path):
            replace_durably(path=self._path, content=_lines(self._measurements))

    @property
    def measurements(self) -> Sequence[Measurement]:
        """In order of steps."""
        return self._measurements

    def add(self, measurement: Measurement) -> None:
        """Where the run stands now; the line has reached the disk on return."""
        self._measurements.append(measurement)
        if self._path is None:
            return
        with disk_refusals_told(self._path), self._path.open("ab") as file:
            file.write(_lines([measurement]))
            file.flush()
            sync_file(file.fileno())


def read_metrics(*, path: Path) -> list[Measurement]:
    """The lines of a `metrics.jsonl`; a last one that was cut off is left out.

    Raises:
        ConfigurationError: another line is damaged.
    """
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(from_row(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"line {number} of {path} is damaged: move the file away, it proves nothing"
            ) from error
    return found


def as_row(measurement: Measurement) -> dict[str, Any]:
    """A measurement for machines: an ε or a quality that is not finite is null."""
    return {
        "step": measurement.step,
        "epsilon": _finite(measurement.epsilon),
        "quality": _finite(measurement.quality),
        "metric": measurement.metric,
    }


def from_row(row: Mapping[str, Any]) -> Measurement:
    """The measurement of which `as_row` made `row`; an ε that was not finite is infinite.

    Raises:
        ValueError, KeyError or TypeError: it is damaged.
    """
    return Measurement(
        step=int(row["step"]),
        epsilon=math.inf if row["epsilon"] is None else float(row["epsilon"]),
        quality=None if row["quality"] is None else float(row["quality"]),
        metric=row["metric"],
    )


def _lines(measurements: Iterable[Measurement]) -> bytes:
    return b"".join(json.dumps(as_row(each)).encode() + b"\n" for each in measurements)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
