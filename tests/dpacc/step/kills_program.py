"""What `test_resumption` runs: runs killed where they are told to die, and started again.

Each is forked from one process that has imported everything, so that a kill costs no start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc.errors import DpaccError
from dpacc.step import resumption
from tests.dpacc.step.resume_program import die_at, run
from tests.forked_ranks import fork_ranks, import_beforehand


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Which run dies where: at the `call`-th call of a place."""

    place: str
    call: int
    backend: str = "plain"
    ranks: int = 1
    resumes_under: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.backend} on {self.ranks}, {self.place} {self.call}"


KILLS = [
    Kill(place="before the charge", call=5),
    Kill(place="before the journal", call=5),
    Kill(place="before the journal's entry has its name", call=5),
    Kill(place="before the update", call=5),
    Kill(place="amid the update", call=10),
    Kill(place="amid a checkpoint", call=2),
    Kill(place="before a checkpoint has its name", call=1),
    Kill(place="after a checkpoint, before the old is dropped", call=2),
    Kill(place="before the journal", call=5, ranks=2),
    Kill(place="amid a checkpoint", call=2, ranks=2),
    Kill(place="before the update", call=5, ranks=2, resumes_under="fsdp2"),
    Kill(place="between update and schedule", call=6, ranks=2, backend="zero1"),
    Kill(place="before the journal", call=5, ranks=2, backend="zero2"),
    Kill(place="before a checkpoint", call=2, ranks=2, backend="zero3"),
]
"""Every other death under every backend: benchmarks/kills.py."""


def kill_and_resume(kill: Kill, folder: Path) -> dict[str, list[int]]:
    """The exit statuses of the ranks that were killed, and of those that resumed."""
    die = (kill.place, kill.call)
    return {
        "killed": fork_ranks(lambda: _run_and_die(folder, kill.backend, *die), ranks=kill.ranks),
        "resumed": fork_ranks(
            lambda: run(folder, kill.resumes_under or kill.backend), ranks=kill.ranks
        ),
    }


def _run_and_die(folder: Path, backend: str, place: str, call: int) -> None:
    die_at(place, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(folder, backend)


def _note_refusal(folder: Path, backend: str, note: Path) -> None:
    try:
        run(folder, backend)
    except DpaccError as refusal:
        Path(f"{note}-{os.environ['RANK']}").write_text(str(refusal))


def _note_mixed_up(folder: Path, backend: str, note: Path) -> None:
    """Resume with adapters that are not those of the optimizer's state."""
    adopt = resumption.adopt

    def adopt_others(parameters: Any, saved: Any) -> None:
        adopt(parameters, {name: tensor + 1 for name, tensor in saved.items()})

    resumption.adopt = adopt_others
    _note_refusal(folder, backend, note)


def main() -> None:
    """Kill and resume in every way; then resume ZeRO's runs as they must not be."""
    folder = Path(sys.argv[1])
    import_beforehand()
    statuses = {kill.name: kill_and_resume(kill, folder / kill.name) for kill in KILLS}
    (folder / "statuses.json").write_text(json.dumps(statuses))
    cut = {kill.backend: folder / kill.name for kill in KILLS}
    fork_ranks(lambda: _note_refusal(cut["zero2"], "zero3", folder / "refusal"), ranks=2)
    fork_ranks(lambda: _note_mixed_up(cut["zero3"], "zero3", folder / "mixed-up"), ranks=2)


if __name__ == "__main__":
    main()
