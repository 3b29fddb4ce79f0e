"""The report of a sweep on public data: every trial, and that none of it protects anybody."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up

from dpacc.artifacts.document.content import Document, Heading, Paragraph, Points, Table, Verdict
from dpacc.artifacts.progress_chart import Measurement
from dpacc.errors import ConfigurationError

RESULTS = "results.jsonl"
_METRICS = ("accuracy", "perplexity")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of settings, what held-out data says of it, and what it would cost alone."""

    settings: Mapping[str, str]
    quality: Measurement
    delta: float
    adjacency: str
    unit: str
    method: str


@dataclass(frozen=True, kw_only=True)
class TrialsFacts:
    """A sweep of trials on public data."""

    name: str
    trials: tuple[Trial, ...]


def gather_trials(*, results: Path) -> TrialsFacts:
    """Read what `recipes/sweep.py` wrote of public data.

    Raises:
        ConfigurationError: the file is missing, damaged or empty.
    """
    try:
        lines = results.read_text(encoding="utf-8").splitlines()
        trials = tuple(_trial(json.loads(line)) for line in lines)
    except OSError as failure:
        raise ConfigurationError(f"cannot read {results}: {failure.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{results} holds no trials of a sweep, or is damaged: name a run's folder, or restore "
            "it from a copy"
        ) from None
    if not trials:
        raise ConfigurationError(f"{results} is empty, so that there is nothing to report")
    return TrialsFacts(name=results.resolve().parent.name, trials=trials)


def _trial(said: Mapping[str, Any]) -> Trial:
    metric = next((each for each in _METRICS if each in said), "")
    quality = float(said[metric])
    measured = Measurement(
        step=0,
        epsilon=float(said["epsilon"]),
        quality=quality if math.isfinite(quality) else None,
        metric="accuracy" if metric == "accuracy" else "perplexity",
    )
    return Trial(
        settings={str(name): str(value) for name, value in said["settings"].items()},
        quality=measured,
        delta=float(said["delta"]),
        adjacency=str(said["adjacency"]),
        unit=str(said["unit"]),
        method=str(said["method"]),
    )


def report_of_trials(*, facts: TrialsFacts) -> Document:
    """All that is to be said of them: no promise is made."""
    return Document(
        title="Privacy report",
        subtitle=f"{facts.name}, a sweep on public data",
        verdict=Verdict(
            standing="unclaimed",
            headline="This sweep promises nothing to anybody: it was told that its data is public.",
            reasons=(
                "every trial was shown and compared, which no ε here charges for",
                "each trial's ε is what training it alone would cost; all trials used the same "
                "data, so that they cost more together",
            ),
        ),
        first_page=(
            Points(
                points=(
                    ("What was to be protected", "nothing: the data is said to be public."),
                    (
                        "What it is for",
                        "choosing settings for a run on private data, whose own "
                        "report says what that run promises.",
                    ),
                )
            ),
            Heading(level=2, words=f"All {len(facts.trials)} trials, the best first"),
            _table(facts.trials),
            Paragraph(
                words="Settings that win on public data are chosen without a cost to private data. "
                "Where the data is private after all, search it with recipes/sweep.py without "
                "data_is_public, which charges for the choice."
            ),
        ),
        body=(),
    )


def _table(trials: Sequence[Trial]) -> Table:
    names = [*dict.fromkeys(name for each in trials for name in each.settings)]
    return Table(
        caption="What held-out data says of each, and what it would cost alone",
        columns=("trial", "held-out quality", "ε alone", "δ, unit, adjacency, method"),
        rows=tuple(_row(each, names) for each in sorted(trials, key=_merit, reverse=True)),
    )


def _row(trial: Trial, names: Sequence[str]) -> tuple[str, ...]:
    told = (f"{name} = {trial.settings[name]}" for name in names if name in trial.settings)
    finite = trial.quality.quality is not None
    spent = trial.quality.epsilon
    return (
        ", ".join(told),
        f"{trial.quality.metric} {trial.quality.shown}" if finite else "not finite",
        rounded_up(spent) if math.isfinite(spent) else "none holds",
        f"{rounded_up(trial.delta)}, {trial.unit}, {trial.adjacency}, "
        f"{METHOD_NAMES.get(trial.method, trial.method)}",
    )


def _merit(trial: Trial) -> float:
    quality = trial.quality.quality
    if quality is None:
        return -math.inf
    return quality if trial.quality.metric == "accuracy" else -quality
