"""Krum, Bulyan, medians and trimmed means of the rows of one matrix.

All that depends on lengths and angles follows from the Gram matrix; what goes number by number
takes some columns at a time, so that memory beside the updates stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]

_BLOCK = 1 << 19
"""Numbers that are taken at a time."""


def median_cosines(moved: Vectors) -> Vectors:
    """Of each row, the cosine with the number-by-number median of all others; 0 if one is none.

    Of n − 1 others the k-th smallest is the k-th of all, where that is smaller than the row's own,
    and else the one after it: the middle order statistics of all serve every row.

    >>> median_cosines(np.array([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])).round(2).tolist()
    [-1.0, -1.0, -1.0]
    """
    count = len(moved)
    low, high = (count - 2) // 2, (count - 1) // 2
    along, squares, own = np.zeros(count), np.zeros(count), np.zeros(count)
    for part in _columns(moved):
        middle = np.partition(part, sorted({low, high, high + 1}), axis=1)
        upper = _kth_of_others(part, middle, high)
        others = upper if low == high else (_kth_of_others(part, middle, low) + upper) / 2
        along += np.einsum("cr,cr->r", part, others)
        squares += np.einsum("cr,cr->r", others, others)
        own += np.einsum("cr,cr->r", part, part)
    sizes = np.sqrt(squares * own)
    return np.divide(along, sizes, out=np.zeros(count), where=sizes > 0)


def krum(gram: Vectors, *, hostile: int, keep: int) -> list[int]:
    """The rows closest to their n − f − 2 nearest, by squared distance; arXiv 1703.02757.

    Args:
        gram: inner products of all rows.
        hostile: f.
        keep: how many.

    >>> rows = np.array([[0.0], [0.1], [0.2], [9.0]])
    >>> krum(rows @ rows.T, hostile=0, keep=2)
    [0, 1]
    """
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares - 2 * gram, 0.0)
    np.fill_diagonal(distances, np.inf)
    nearest = max(1, len(gram) - hostile - 2)
    scores = np.sort(distances, axis=1)[:, :nearest].sum(axis=1)
    return sorted(int(at) for at in np.argsort(scores, kind="stable")[:keep])


def median(moved: Vectors) -> Vectors:
    """Number by number, the median of all rows."""
    return _by_columns(moved, lambda part: np.median(part, axis=1))


def trimmed_mean(moved: Vectors, *, hostile: int) -> Vectors:
    """Number by number, the mean without the f largest and the f smallest; arXiv 1803.01498.

    >>> trimmed_mean(np.array([[1.0], [2.0], [3.0], [90.0]]), hostile=1).tolist()
    [2.5]
    """
    first, end = hostile, len(moved) - hostile

    def inner(part: Vectors) -> Vectors:
        cut = np.partition(part, (first, end - 1), axis=1)
        return np.asarray(cut[:, first:end].mean(axis=1))

    return _by_columns(moved, inner)


def bulyan(moved: Vectors, gram: Vectors, *, hostile: int) -> tuple[Vectors, list[int]]:
    """Krum's n − 2f rows, and of them, number by number, the mean of the n − 4f nearest their
    median; arXiv 1802.07927.

    Args:
        moved: rows.
        gram: their inner products.
        hostile: f.
    """
    chosen = krum(gram, hostile=hostile, keep=len(moved) - 2 * hostile)
    near = max(1, len(chosen) - 2 * hostile)

    def closest(part: Vectors) -> Vectors:
        part = part[:, chosen]
        gaps = np.abs(part - np.median(part, axis=1, keepdims=True))
        places = np.argpartition(gaps, near - 1, axis=1)[:, :near]
        return np.asarray(np.take_along_axis(part, places, axis=1).mean(axis=1))

    return _by_columns(moved, closest), chosen


def extreme_shares(moved: Vectors, *, hostile: int) -> Vectors:
    """In what share of its numbers each row is among the f largest or the f smallest.

    Chance makes it 2f/n. Who shares its number with those between them is not extreme there.

    >>> extreme_shares(np.array([[9.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), hostile=1).tolist()
    [0.5, 0.5, 0.0]
    """
    count = len(moved)
    if hostile == 0:
        return np.zeros(count)
    first, last = hostile, count - hostile - 1
    found = np.zeros(count)
    for part in _columns(moved):
        ordered = np.partition(part, (first, last), axis=1)
        beyond = (part < ordered[:, [first]]) | (part > ordered[:, [last]])
        found += beyond.sum(axis=0)
    return np.asarray(found / moved.shape[1])


def _kth_of_others(part: Vectors, ordered: Vectors, k: int) -> Vectors:
    here, after = ordered[:, [k]], ordered[:, [k + 1]]
    return np.asarray(np.where(part > here, here, after))


def _columns(moved: Vectors) -> Iterator[Vectors]:
    """Some columns at a time, each as a row."""
    width = max(1, _BLOCK // len(moved))
    for start in range(0, moved.shape[1], width):
        yield np.ascontiguousarray(moved[:, start : start + width].T)


def _by_columns(moved: Vectors, each: Callable[[Vectors], Vectors]) -> Vectors:
    found: Sequence[Vectors] = [each(part) for part in _columns(moved)]
    return np.concatenate(found)
