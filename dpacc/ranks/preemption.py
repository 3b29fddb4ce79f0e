"""A machine that is about to be taken away says so by a signal; a run then stops between steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator

from dpacc.ranks.collectives import sum_over_ranks

RETURN_LATER = 75
"""The exit code of a run that is to be started again: EX_TEMPFAIL of BSD's sysexits(3)."""

_NOTICES = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What Kubernetes and Slurm send; Windows has no SIGUSR1."""


@contextmanager
def heeding_preemption(accelerator: Accelerator) -> Iterator[Callable[[], bool]]:
    """While it lasts, SIGTERM and SIGUSR1 do not kill; they are to be asked for after each step.

    The function it yields says whether any rank was told; all ranks must call it, and all get the
    same answer, so that they stop after the same step. For the main thread alone.

    >>> import os
    >>> with heeding_preemption(Accelerator(cpu=True)) as told:
    ...     before = told()
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     print(before, told())
    False True
    """
    notices: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        notices.append(number)

    def any_rank_was_told() -> bool:
        mine = torch.tensor([float(bool(notices))], device=accelerator.device)
        return bool(sum_over_ranks(accelerator, mine).item())

    former = {notice: signal.signal(notice, note) for notice in _NOTICES}
    try:
        yield any_rank_was_told
    finally:
        for notice, handler in former.items():
            signal.signal(notice, handler)
