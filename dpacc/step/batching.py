"""How one logical batch is cut into micro-batches for each rank.

The clipped sum does not depend on the cut, so this is free of privacy cost; it is where speed
comes from: neighbours of like length waste few padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MicroBatch = list[int]

_STARTING_COST = {"cpu": 32}
_STARTING_COST_OF_ACCELERATORS = 4096


def starting_cost(device_type: str) -> int:
    """How many padded tokens take as long as starting one more micro-batch, roughly.

    A processor is fully used by a few hundred tokens, an accelerator by thousands.
    """
    return _STARTING_COST.get(device_type, _STARTING_COST_OF_ACCELERATORS)


def cut_into_micro_batches(
    *,
    lengths: Sequence[int],
    ranks: int,
    max_tokens: int,
    start_cost: int = _STARTING_COST_OF_ACCELERATORS,
    counts: Sequence[int] | None = None,
    max_units: int | None = None,
) -> list[list[MicroBatch]]:
    """Cut units 0 … len(lengths)−1 into micro-batches of at most `max_tokens` padded tokens.

    Units are sorted by length and dealt to the ranks like cards, so that all ranks hold the like.
    Every rank's hand is then cut at the same places, where padded tokens + start_cost for every
    micro-batch are least. So every rank gets the same number of micro-batches, costliest first, and
    collectives match; an empty one stands where a rank has nothing left. A unit beyond the budget
    forms a micro-batch of its own.

    Args:
        lengths: tokens in the longest example of each drawn privacy unit.
        ranks: the number of processes.
        max_tokens: the budget: examples × the longest among them.
        start_cost: padded tokens that one micro-batch fewer is worth.
        counts: examples of each unit; by default one.
        max_units: the most units in a micro-batch, whose gradients are kept at once.

    Returns:
        For each rank, its micro-batches as lists of positions into `lengths`.

    >>> cut_into_micro_batches(lengths=[3, 9, 3, 8], ranks=1, max_tokens=18)
    [[[1, 3], [0, 2]]]
    >>> cut_into_micro_batches(lengths=[4], ranks=2, max_tokens=100)
    [[[0]], [[]]]
    """
    hands = _deal(lengths, ranks)
    widths = np.array([max(1, *(lengths[u] for u in hand if u is not None)) for hand in hands])
    each = counts or [1] * len(lengths)
    held = np.zeros((ranks, len(hands) + 1), dtype=np.int64)
    for column, hand in enumerate(hands, 1):
        held[:, column] = [0 if u is None else each[u] for u in hand]
    runs = _cheapest_runs(
        held=held.cumsum(axis=1),
        widths=widths,
        max_tokens=max_tokens,
        start_cost=start_cost,
        max_hands=max_units or len(hands),
    )
    runs.sort(key=lambda run: -run.padded)
    return [[_units_of(rank, hands[run.start : run.stop]) for run in runs] for rank in range(ranks)]


Hand = list[int | None]
"""One unit for each rank, all of like lengths; the last hand may have none for some."""


def _deal(lengths: Sequence[int], ranks: int) -> list[Hand]:
    """Longest first; every other hand is reversed, so that no rank always gets the longest."""
    order: Hand = [*sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))]
    order += [None] * (-len(order) % ranks)
    hands = [order[first : first + ranks] for first in range(0, len(order), ranks)]
    return [hand if i % 2 == 0 else hand[::-1] for i, hand in enumerate(hands)]


def _units_of(rank: int, hands: Sequence[Hand]) -> MicroBatch:
    return [unit for hand in hands if (unit := hand[rank]) is not None]


class _Run(NamedTuple):
    """Consecutive hands, and the padded tokens they make on the rank with the most examples."""

    start: int
    stop: int
    padded: int


def _cheapest_runs(
    *,
    held: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    max_tokens: int,
    start_cost: int,
    max_hands: int,
) -> list[_Run]:
    """Cut the hands into runs of least padded tokens + start_cost · runs, each within its limits.

    By dynamic programming over the run that ends at each hand.

    Args:
        held: [ranks, hands + 1], each rank's examples in all hands before.
        widths: [hands], the longest example of each, descending.
        max_tokens: limit of padded tokens in a run of more than one hand.
        start_cost: as in `cut_into_micro_batches`.
        max_hands: limit of hands in a run.
    """
    least = np.zeros(len(widths) + 1, dtype=np.int64)
    last: list[_Run] = []
    for stop in range(1, len(widths) + 1):
        # A longer run would exceed the budget even if all its examples were as short as this one.
        most = max(1, min(max_hands, max_tokens // widths[stop - 1].item()))
        start = max(0, stop - most)
        examples = (held[:, stop, None] - held[:, start:stop]).max(axis=0)
        padded = examples * widths[start:stop]
        costs = (least[start:stop] + padded).astype(np.float64)
        costs[:-1][padded[:-1] > max_tokens] = np.inf
        best = int(costs.argmin())
        least[stop] = least[start + best] + padded[best] + start_cost
        last.append(_Run(start + best, stop, padded[best].item()))
    runs, stop = [], len(widths)
    while stop:
        runs.append(last[stop - 1])
        stop = runs[-1].start
    return runs
