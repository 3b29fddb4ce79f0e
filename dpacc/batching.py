"""How one logical batch is cut into micro-batches for each rank.

The clipped sum does not depend on the cut, so this is free of privacy cost; it is where speed
comes from: neighbours of like length waste few padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MicroBatch = list[int]


def cut_into_micro_batches(
    *,
    lengths: Sequence[int],
    ranks: int,
    max_tokens: int,
    counts: Sequence[int] | None = None,
    max_units: int | None = None,
) -> list[list[MicroBatch]]:
    """Cut units 0 … len(lengths)−1 into micro-batches of at most `max_tokens` padded tokens.

    Every rank gets the same number of micro-batches, costliest first, so that collectives match;
    an empty one stands where a rank has nothing left. A unit beyond the budget forms a micro-batch
    of its own.

    Args:
        lengths: tokens in the longest example of each drawn privacy unit.
        ranks: the number of processes.
        max_tokens: the budget: examples × the longest among them.
        counts: examples of each unit; by default one.
        max_units: the most units in a micro-batch, whose gradients are kept at once.

    Returns:
        For each rank, its micro-batches as lists of positions into `lengths`.

    >>> cut_into_micro_batches(lengths=[3, 9, 3, 8], ranks=1, max_tokens=18)
    [[[1, 3], [0, 2]]]
    >>> cut_into_micro_batches(lengths=[4], ranks=2, max_tokens=100)
    [[[0]], [[]]]
    """
    if not lengths:
        return [[] for _ in range(ranks)]
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    units = _Units(longest_first, lengths, counts or [1] * len(lengths), max_units or len(lengths))
    rounds = -(-len(units.cut(max_tokens)) // ranks)
    batches = units.cut(_smallest_budget(units, limit=rounds * ranks, ceiling=max_tokens))
    batches.sort(key=units.cost, reverse=True)
    batches += [[] for _ in range(rounds * ranks - len(batches))]
    return _deal(batches, ranks)


class _Units(NamedTuple):
    order: Sequence[int]
    lengths: Sequence[int]
    counts: Sequence[int]
    most: int

    def cut(self, budget: int) -> list[MicroBatch]:
        """Consecutive runs of the order, each within the budget of padded tokens."""
        batches: list[MicroBatch] = []
        width = examples = 0
        for unit in self.order:
            examples += self.counts[unit]
            full = batches and (examples * width > budget or len(batches[-1]) == self.most)
            if not batches or full:
                batches.append([])
                width, examples = max(1, self.lengths[unit]), self.counts[unit]
            batches[-1].append(unit)
        return batches

    def cost(self, batch: MicroBatch) -> int:
        """Padded tokens of a micro-batch."""
        return self.lengths[batch[0]] * sum(self.counts[unit] for unit in batch)


def _smallest_budget(units: _Units, *, limit: int, ceiling: int) -> int:
    """The least budget that needs no more than `limit` micro-batches: it levels the ranks."""
    low, high = 1, ceiling
    while low < high:
        middle = (low + high) // 2
        if len(units.cut(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def _deal(batches: list[MicroBatch], ranks: int) -> list[list[MicroBatch]]:
    """Deal like cards, reversing every other round so that no rank always gets the longest."""
    shares: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    for first in range(0, len(batches), ranks):
        hand = batches[first : first + ranks]
        for rank, batch in enumerate(hand if (first // ranks) % 2 == 0 else reversed(hand)):
            shares[rank].append(batch)
    return shares
