"""Ranks forked from a process that has imported everything, so that a start costs next to none."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import connection, get_context


def fork_ranks(work: Callable[[], None], *, ranks: int, survivor: int | None = None) -> list[int]:
    """Do `work` on ranks of their own; when one fails the others are killed, as launchers do.

    Args:
        work: what each rank does.
        ranks: how many.
        survivor: the rank that is waited for, whatever becomes of the others, if there is one.

    Returns:
        Their exit statuses; negative, the signal that ended one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gc.freeze()  # no rank walks through, and so copies, what was there before
    fork = get_context("fork")
    everyone = [
        fork.Process(target=_be_rank, args=(rank, ranks, port, work)) for rank in range(ranks)
    ]
    for process in everyone:
        process.start()
    waited_for = everyone if survivor is None else [everyone[survivor]]
    while alive := [process for process in waited_for if process.is_alive()]:
        connection.wait([process.sentinel for process in alive])
        if any(process.exitcode for process in waited_for):
            break
    for process in everyone:
        if process.is_alive() and (survivor is not None or any(p.exitcode for p in everyone)):
            process.kill()
        process.join()
    return [process.exitcode or 0 for process in everyone]


def import_beforehand() -> None:
    """What every rank would otherwise import, or compile, for itself."""
    import deepspeed  # noqa: F401
    from deepspeed.runtime.zero import stage3, stage_1_and_2  # noqa: F401

    from tests.tiny_models import tiny_model

    tiny_model("llama")  # the patterns by which PEFT and transformers rename weights


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
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
    sys.stderr.flush()
    os._exit(0)  # DeepSpeed's threads may not end in peace
