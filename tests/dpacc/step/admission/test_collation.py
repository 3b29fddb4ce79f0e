"""What a collate function draws."""

from __future__ import annotations

import torch

from dpacc.randomness.run_secret import RunSecret
from dpacc.step.admission.collation import KeyedCollation

SECRET = RunSecret.from_fixed_seed(3)


def draws(*, rank: int, begun: int, calls: int) -> list[list[float]]:
    """What each call of a collate function draws from torch's generator."""
    collate = KeyedCollation(lambda _: torch.rand(4), SECRET, rank=rank, begun=begun)
    return [collate([]).tolist() for _ in range(calls)]


def test_no_two_batches_draw_the_same() -> None:
    """Neither later calls, nor other ranks, nor a loop that is begun again later in the run.

    Numbers that were used in a released step must be nobody's in another one.
    """
    found = [
        *draws(rank=0, begun=0, calls=3),
        *draws(rank=1, begun=0, calls=3),
        *draws(rank=0, begun=2, calls=3),
    ]
    assert len({tuple(each) for each in found}) == 9
    assert draws(rank=0, begun=2, calls=3) == found[6:]
