"""In which rounds a client's numbers have left under masks: once each, whatever becomes of the sum.

Two sums of one update, one of which lacks another client's, differ by that client's update in all
its numbers. So an update goes into one sum, which is on the disk before anything leaves.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dpacc.federated.requests import RequestRefused


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
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a") as file:
            # A line that a crash has torn ends here.
            file.write("\n" + _line(run, number) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _line(run: str, number: int) -> str:
    return json.dumps([run, number])
