"""How one logical batch is cut into micro-batches for each rank.

The clipped sum does not depend on the cut, so this is free of privacy cost; it is where speed
comes from: neighbours of like length waste few padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

MicroBatch = list[int]


def cut_into_micro_batches(
    *, lengths: Sequence[int], ranks: int, max_tokens: int
) -> list[list[MicroBatch]]:
    """Cut examples 0 … len(lengths)−1 into micro-batches of at most `max_tokens` padded tokens.

    Every rank gets the same number of micro-batches, costliest first, so that collectives match;
    an empty one stands where a rank has nothing left. An example longer than the budget forms a
    micro-batch of its own.

    Args:
        lengths: tokens in each drawn example.
        ranks: the number of processes.
        max_tokens: the budget: examples × the longest among them.

    Returns:
        For each rank, its micro-batches as lists of positions into `lengths`.

    >>> cut_into_micro_batches(lengths=[3, 9, 3, 8], ranks=1, max_tokens=18)
    [[[1, 3], [0, 2]]]
    >>> cut_into_micro_batches(lengths=[4], ranks=2, max_tokens=100)
    [[[0]], [[]]]
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    fewest = len(_cut(longest_first, lengths, max_tokens))
    rounds = -(-fewest // ranks)
    budget = _smallest_budget(longest_first, lengths, limit=rounds * ranks, ceiling=max_tokens)
    batches = _cut(longest_first, lengths, budget)
    batches.sort(key=lambda batch: -len(batch) * lengths[batch[0]])
    batches += [[] for _ in range(rounds * ranks - len(batches))]
    return _deal(batches, ranks)


def _cut(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[MicroBatch]:
    """Consecutive runs of `order`, each within the budget of padded tokens."""
    batches: list[MicroBatch] = []
    start = 0
    while start < len(order):
        width = max(1, lengths[order[start]])
        count = max(1, budget // width)
        batches.append(list(order[start : start + count]))
        start += count
    return batches


def _smallest_budget(
    order: Sequence[int], lengths: Sequence[int], *, limit: int, ceiling: int
) -> int:
    """The least budget that needs no more than `limit` micro-batches: it levels the ranks."""
    low, high = 1, ceiling
    while low < high:
        middle = (low + high) // 2
        if len(_cut(order, lengths, middle)) <= limit:
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
