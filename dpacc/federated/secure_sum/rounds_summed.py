"""What a client knows on its disk of the sums that it took part in, before anything leaves.

Two sums of one update, one of which lacks another client's, differ by that client's update in all
its numbers. So an update goes into one sum, whatever becomes of that.

Until a client trains, a sum shows nothing of its data: fresh keys, sealed shares of fresh secrets,
and whom it drew. But who begins sums until a draw suits him has as many chances as he begins sums,
so a client draws so often at most before its numbers leave.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dpacc_accounting.ledger.disk import sync_file, sync_folder

from dpacc.federated.requests import RequestRefused

MOST_DRAWS = 16
"""After so many sums in a row that were begun and given up a client's owner must look."""


class RoundsSummed:
    """A file with a line for each run and round.

    Args:
        folder: the client's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rounds_summed.jsonl"

    def refuse_second(self, run: str, number: int) -> None:
        """Refuse a round that was summed before.

        Raises:
            RequestRefused: naming it.
        """
        if self._path.exists() and _line(run, number) in self._path.read_text().splitlines():
            raise RequestRefused(
                f"this client's update of round {number} went into a sum before, and two sums of "
                "one update would tell it from the others'; go on with the next round"
            )

    def keep(self, run: str, number: int) -> None:
        """Write the round down, to the disk; called before anything of it leaves."""
        # A line that a crash has torn ends here.
        _append(self._path, "\n" + _line(run, number) + "\n")


class SumsBegun:
    """How often a client has drawn neighbours since its numbers left last.

    Args:
        folder: the client's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sums_begun.jsonl"

    def count(self) -> None:
        """Write one more draw down, to the disk; called before it is told to anybody.

        Raises:
            RequestRefused: `MOST_DRAWS` came to nothing, one after the other.
        """
        begun = self._path.read_bytes().count(b"\n") if self._path.exists() else 0
        if begun >= MOST_DRAWS:
            raise RequestRefused(
                f"this client drew neighbours for {begun} sums in a row of which it trained for "
                "none, and a server could go on until a draw suits it; once its owner knows why "
                f"they were given up, let him delete {self._path.name} from its folder"
            )
        _append(self._path, "1\n")

    def clear(self) -> None:
        """Begin to count anew; called when numbers that are charged leave."""
        self._path.unlink(missing_ok=True)


def _append(path: Path, text: str) -> None:
    """Add to a file that is its owner's alone, to the disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(text)
        file.flush()
        sync_file(file.fileno())
    if is_new:
        sync_folder(path.parent)


def _line(run: str, number: int) -> str:
    return json.dumps([run, number])
