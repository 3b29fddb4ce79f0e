"""Masks: the promised rate, one for each example and call, and the same at any width."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dpacc.randomness.dropout_masks import EVERYBODY, MADE_UP, RATE_STEPS, ExampleMasks
from dpacc.randomness.run_secret import RunSecret

SECRET = RunSecret.from_fixed_seed(0)


def masks_at(step: int) -> ExampleMasks:
    return ExampleMasks(SECRET.stream(purpose="dropout", step=step))


@pytest.mark.parametrize("shape", [(40_000,), (100, 400), (4, 100, 100)])
def test_numbers_stay_at_the_rate_that_was_asked(shape: tuple[int, ...]) -> None:
    """Within five standard deviations, in every shape."""
    threshold = round(0.3 * RATE_STEPS)
    kept = masks_at(0).kept(example=1, call=2, shape=shape, threshold=threshold)
    deviation = np.sqrt(0.3 * 0.7 / kept.size)
    assert abs(kept.mean() - 0.7) < 5 * deviation


def test_every_example_call_and_step_has_a_mask_of_its_own() -> None:
    """No two of them agree in more places than chance lets them; repeated, they agree in all."""
    kept = [
        masks_at(step).kept(example=example, call=call, shape=(4_096,), threshold=RATE_STEPS // 2)
        for step, example, call in itertools.product((0, 1), (0, 1, MADE_UP, EVERYBODY), (0, 1))
    ]
    for first, second in itertools.combinations(kept, 2):
        assert abs((first == second).mean() - 0.5) < 5 * 0.5 / 64
    again = masks_at(0).kept(example=0, call=0, shape=(4_096,), threshold=RATE_STEPS // 2)
    assert (again == kept[0]).all()


@pytest.mark.parametrize(("narrow", "wide"), [((7, 8), (12, 8)), ((3, 7, 7), (3, 12, 12))])
def test_padding_on_either_side_moves_no_mask(
    narrow: tuple[int, ...], wide: tuple[int, ...]
) -> None:
    """A token keeps its mask in a wider row, counted from where the tokens begin."""
    common = {"example": 5, "call": 1, "threshold": RATE_STEPS // 3}
    alone = masks_at(2).kept(shape=narrow, **common)
    right = masks_at(2).kept(shape=wide, **common)
    left = masks_at(2).kept(shape=wide, first=5, **common)
    inner = (slice(7),) if len(narrow) == 2 else (slice(None), slice(7), slice(7))
    outer = (slice(5, None),) if len(narrow) == 2 else (slice(None), slice(5, None), slice(5, None))
    assert (right[inner] == alone).all()
    assert (left[outer] == alone).all()


def test_queries_and_keys_need_not_be_as_many() -> None:
    """Cross attention's masks are those of the square around it."""
    common = {"example": 5, "call": 1, "threshold": RATE_STEPS // 3}
    square = masks_at(2).kept(shape=(2, 9, 9), **common)
    oblong = masks_at(2).kept(shape=(2, 4, 9), **common)
    assert (oblong == square[:, :4]).all()


def test_one_number_for_everybody_is_between_0_and_1() -> None:
    """It differs from call to call and from step to step."""
    drawn = [masks_at(step).uniform(call=call) for step in range(20) for call in range(20)]
    assert len(set(drawn)) == 400
    assert 0 <= min(drawn) < 0.05 < 0.95 < max(drawn) < 1
