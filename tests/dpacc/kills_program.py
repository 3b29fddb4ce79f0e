"""What `test_resumption` runs: runs killed where they are told to die, and started again.

Each is forked from one process that has imported everything, so that a kill costs no start.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path

import torch

from dpacc.errors import DpaccError
from tests.dpacc.resume_program import die_at, run


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


def fork_ranks(work: Callable[[], None], *, ranks: int) -> list[int]:
    """Do `work` on ranks of their own; when one fails the others are killed, as launchers do.

    Returns:
        Their exit statuses; negative, the signal that ended one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = get_context("fork")
    alive = [fork.Process(target=_be_rank, args=(rank, ranks, port, work)) for rank in range(ranks)]
    everyone = list(alive)
    for process in everyone:
        process.start()
    while alive:
        connection.wait([process.sentinel for process in alive])
        alive = [process for process in alive if process.is_alive()]
        if any(process.exitcode for process in everyone):
            for process in alive:
                process.kill()
    for process in everyone:
        process.join()
    return [process.exitcode or 0 for process in everyone]


def _be_rank(rank: int, ranks: int, port: int, work: Callable[[], None]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    work()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stderr.flush()
    os._exit(0)  # DeepSpeed's threads may not end in peace


def _run_and_die(folder: Path, backend: str, place: str, call: int) -> None:
    die_at(place, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(folder, backend)


def _note_refusal(folder: Path, backend: str, note: Path) -> None:
    try:
        run(folder, backend)
    except DpaccError as refusal:
        Path(f"{note}-{os.environ['RANK']}").write_text(str(refusal))


def main() -> None:
    """Kill and resume in every way; then resume ZeRO-2's run under ZeRO-3."""
    folder = Path(sys.argv[1])
    statuses = {kill.name: kill_and_resume(kill, folder / kill.name) for kill in KILLS}
    (folder / "statuses.json").write_text(json.dumps(statuses))
    (zero2,) = (kill for kill in KILLS if kill.backend == "zero2")
    fork_ranks(lambda: _note_refusal(folder / zero2.name, "zero3", folder / "refusal"), ranks=2)


if __name__ == "__main__":
    main()
