"""Cutting a logical batch: everything once, within budget, the same number for every rank."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from dpacc.step.batching import cut_into_micro_batches, starting_cost

LENGTHS = st.lists(st.integers(0, 60), max_size=60)


@given(lengths=LENGTHS, ranks=st.integers(1, 5), max_tokens=st.integers(1, 300))
@settings(deadline=None)
def test_every_example_goes_to_exactly_one_micro_batch(
    lengths: list[int], ranks: int, max_tokens: int
) -> None:
    """No example is dropped, none is counted twice."""
    cut = cut_into_micro_batches(lengths=lengths, ranks=ranks, max_tokens=max_tokens)
    placed = [position for share in cut for batch in share for position in batch]
    assert sorted(placed) == list(range(len(lengths)))


@given(lengths=LENGTHS, ranks=st.integers(1, 5), max_tokens=st.integers(1, 300))
@settings(deadline=None)
def test_ranks_run_equally_many_micro_batches_within_the_budget(
    lengths: list[int], ranks: int, max_tokens: int
) -> None:
    """Collectives match on all ranks, and only a single over-long example exceeds the budget."""
    cut = cut_into_micro_batches(lengths=lengths, ranks=ranks, max_tokens=max_tokens)
    assert len(cut) == ranks
    assert len({len(share) for share in cut}) == 1
    for share in cut:
        for batch in share:
            padded = len(batch) * max((lengths[i] for i in batch), default=0)
            assert padded <= max_tokens or len(batch) == 1


@given(lengths=st.lists(st.integers(1, 60), min_size=8, max_size=60))
@settings(deadline=None)
def test_ranks_are_level(lengths: list[int]) -> None:
    """Two ranks' padded tokens differ by no more than one micro-batch's budget."""
    first, second = cut_into_micro_batches(lengths=lengths, ranks=2, max_tokens=120)
    assert abs(padded_tokens(first, lengths) - padded_tokens(second, lengths)) <= 120


def test_sorting_keeps_padding_small() -> None:
    """On lengths like a review's, padded tokens exceed real ones by under 5% on a processor."""
    lengths = [5 + (i * 37) % 60 for i in range(256)]
    (share,) = cut_into_micro_batches(
        lengths=lengths, ranks=1, max_tokens=1024, start_cost=starting_cost("cpu")
    )
    assert padded_tokens(share, lengths) / sum(lengths) < 1.05


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    start_cost=st.integers(0, 40),
    max_tokens=st.integers(1, 80),
)
@settings(deadline=None)
def test_no_other_cut_of_the_sorted_units_costs_less(
    lengths: list[int], start_cost: int, max_tokens: int
) -> None:
    """Padded tokens and starts together are the least of all 2^(n-1) cuts within the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    costs = []
    for places in itertools.product([False, True], repeat=len(lengths) - 1):
        cut: list[list[int]] = [[order[0]]]
        for unit, here in zip(order[1:], places, strict=True):
            cut += [[]] if here else []
            cut[-1].append(unit)
        if all(len(b) == 1 or len(b) * lengths[b[0]] <= max_tokens for b in cut):
            costs.append(padded_tokens(cut, lengths) + start_cost * len(cut))
    (share,) = cut_into_micro_batches(
        lengths=lengths, ranks=1, max_tokens=max_tokens, start_cost=start_cost
    )
    assert padded_tokens(share, lengths) + start_cost * len(share) == min(costs)


def padded_tokens(share: list[list[int]], lengths: list[int]) -> int:
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in share if batch)
