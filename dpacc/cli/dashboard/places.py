"""What lies where a dashboard is pointed at: runs, federations, budgets and saved courses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpacc.errors import ConfigurationError

LEDGER = "ledger.jsonl"
ROUNDS = "rounds.yaml"
HISTORIES = ("history.json", "state.json", "server/state.json")
"""Where the rounds of a federation stand: after its end, or while it goes on."""
_BUDGETS = ".budget.jsonl"
_COURSES = ".course.json"
_LEDGERS_START = b'{"kind":"opened"'
_DEEPEST = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """A run's ledger, a federation's folder, a budget's or a course's file, and its name here."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Places:
    """All that is shown."""

    runs: tuple[Place, ...]
    federations: tuple[Place, ...]
    budgets: tuple[Place, ...]
    courses: tuple[Place, ...]


def find_places(*, paths: Sequence[Path]) -> Places:
    """What lies in folders, or is named outright: a run's ledger, a budget, or a saved course.

    Args:
        paths: folders of runs and federations, or of folders of them; ledgers; budgets; courses
            that a `UtilityMonitor` saved, whose names end in `.course.json`.

    Raises:
        ConfigurationError: a path is not there.
    """
    found: dict[str, dict[Path, str]] = {
        "run": {},
        "federation": {},
        "budget": {},
        "course": {},
    }
    for root in paths:
        if not root.exists():
            raise ConfigurationError(f"there is no {root}: name a folder of runs, or a budget")
        resolved = root.resolve()
        for kind, path in _kinds(resolved):
            found[kind].setdefault(path, _called(path, resolved, many=len(paths) > 1))
    return Places(
        runs=_named(found["run"]),
        federations=_named(found["federation"]),
        budgets=_named(found["budget"]),
        courses=_named(found["course"]),
    )


def history_of(folder: Path) -> Path | None:
    """The file with a federation's rounds; None where there is none."""
    return next((folder / each for each in HISTORIES if (folder / each).is_file()), None)


def _kinds(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_dir():
        yield from _in_folder(root, depth=0)
    elif root.name.endswith(_COURSES):
        yield "course", root
    elif root.name.endswith(_BUDGETS) or not _begins_a_ledger(root):
        yield "budget", root
    else:
        yield "run", root


def _in_folder(folder: Path, *, depth: int) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda each: each.name)
    except OSError:
        return  # of another owner, or gone since
    names = {each.name for each in listed}
    if LEDGER in names:
        yield "run", folder / LEDGER
    # The state of a deployed server is its folder's; that of a recipe's server is the run's.
    beside = {ROUNDS, *HISTORIES, "server"} & names
    if ROUNDS in beside or (beside and folder.name != "server" and history_of(folder)):
        yield "federation", folder
    for kind, end in (("budget", _BUDGETS), ("course", _COURSES)):
        yield from ((kind, folder / name) for name in sorted(names) if name.endswith(end))
    if depth == _DEEPEST:
        return
    for each in listed:
        if each.is_dir(follow_symlinks=False) and not each.name.startswith("."):
            yield from _in_folder(folder / each.name, depth=depth + 1)


def _begins_a_ledger(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LEDGERS_START)) == _LEDGERS_START


def _called(path: Path, root: Path, *, many: bool) -> str:
    """Its folder as seen from `root`; all but a ledger that was found in one are files."""
    whole = path.parent if path.name == LEDGER else path
    if path == root or whole == root:
        return whole.name
    inside = whole.relative_to(root).as_posix()
    return f"{root.name}/{inside}" if many else inside


def _named(found: dict[Path, str]) -> tuple[Place, ...]:
    """Two of one name are told apart by their whole paths."""
    names = Counter(found.values())
    return tuple(
        Place(name=name if names[name] == 1 else str(path), path=path)
        for path, name in found.items()
    )
