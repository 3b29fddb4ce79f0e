"""The update that a client sent last, kept so that it is not made, and charged, twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpacc.artifacts.run_folder import write_file
from dpacc.federated.updates.layout import Arrays


@dataclass(frozen=True, kw_only=True)
class Update:
    """A client's share of one round.

    Args:
        arrays: the adapter after it.
        steps: how many private steps were taken for it.
    """

    arrays: Arrays
    steps: int


class LastUpdate:
    """One file, which appears whole or not at all.

    Args:
        folder: the client's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "last_update.safetensors"

    @property
    def request(self) -> str:
        """What it answered; empty where there is none, or it is torn."""
        if not self._path.exists():
            return ""
        try:
            with safe_open(self._path, framework="numpy") as file:
                return str((file.metadata() or {}).get("request", ""))
        except SafetensorError:
            return ""

    def find(self, fits: Callable[[str], bool]) -> Update | None:
        """The last update, if it answered a request that fits."""
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="numpy") as file:
                known = file.metadata() or {}
                if not fits(known.get("request", "")):
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return Update(arrays=arrays, steps=int(known["steps"]))
        except (SafetensorError, KeyError):  # torn: the update is made anew, and charged anew
            return None

    def keep(self, update: Update, *, request: str) -> None:
        """Write it, before it leaves."""
        said = {"request": request, "steps": str(update.steps)}
        write_file(path=self._path, content=save(update.arrays, metadata=said))
