"""Results of runs, one line each, on disk as soon as they are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cached_states import Result
from utility_contenders import Run

_ALWAYS = ("tool", "epsilon", "batch", "steps", "learning_rate")


class KeptResults:
    """What is known of runs; what is asked again is not computed again.

    Args:
        path: a file of JSON lines, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known: list[Result] = [json.loads(line) for line in lines]

    def find(self, run: Run, **asked: Any) -> Result | None:
        """The result of such a run; a setting that its line does not name has its default."""
        for known in self._known:
            alike = all(known.get(name) == value for name, value in asked.items())
            if alike and Run(**known["run"]) == run:
                return known
        return None

    def keep(self, run: Run, result: Result, **asked: Any) -> Result:
        """Write a result down; of its settings, those that are not their default."""
        asked_anyway = {name: getattr(run, name) for name in _ALWAYS}
        plain = asdict(Run(**asked_anyway))
        changed = {name: value for name, value in asdict(run).items() if value != plain[name]}
        told = asked_anyway | changed
        kept = {**asked, "run": told, **result}
        self._known.append(kept)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(kept) + "\n")
        return kept

    def __iter__(self) -> Any:
        return iter(self._known)
