"""What each rank runs in `test_resumption` under ZeRO: it stops short, and starts again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from dpacc.errors import DpaccError
from tests.dpacc.resume_program import die_at, run

DEATHS_UNDER_ZERO = {
    "zero1": ("before the update", 5),
    "zero2": ("before the journal", 5),
    "zero3": ("before a checkpoint", 2),
}
"""Between them: a replayed journal, a lost step, and a checkpoint of which only parts exist."""


class StoppedShortError(Exception):
    """The end of a run, but not of its process."""


def stop() -> None:
    """As a kill would, for whoever is left to see it."""
    raise StoppedShortError


def main() -> None:
    """Stop and resume under every stage; then resume under another."""
    folder = Path(sys.argv[1])
    for backend, (place, call) in DEATHS_UNDER_ZERO.items():
        restore = die_at(place, call, stop)
        try:
            run(folder / backend, backend)
        except (StoppedShortError, DpaccError) as end:
            print(backend, type(end).__name__, flush=True)
        restore()
        run(folder / backend, backend)
    try:
        run(folder / "zero2", "zero3")
    except DpaccError as refusal:
        Path(folder, f"refusal-{os.environ['RANK']}").write_text(str(refusal))
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # runs that stopped short have left threads behind, which may not end in peace


if __name__ == "__main__":
    main()
