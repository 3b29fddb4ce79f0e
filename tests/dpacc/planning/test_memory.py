"""The largest micro-batch is found from few counts, and is the one that all counts would give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpacc.planning import forecast as forecasting
from dpacc.planning.forecast import Machine, forecast
from dpacc.planning.memory import most_that_fits
from dpacc.planning.traffic import Rates
from dpacc.planning.weightless_step import MicroBatchCost, cost_of_micro_batch
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import CONFIGURATIONS

MACHINE = Machine(gpus=1, memory=24 * 10**9, rates=Rates(operations=120e12, network=25e9))
MANY = 5000


def straight(count: int) -> int:
    return 10_000 + 7 * count


def flat_at_first(count: int) -> int:
    """As where the coupling probe holds more than a few examples do."""
    return max(60_000, 7 * count + 50_000)


def steeper_later(count: int) -> int:
    return max(straight(count), 90 * count)


def flatter_later(count: int) -> int:
    """As where logits exist for a few hundred tokens at a time."""
    return 400 * min(count, 30) + straight(count)


SHAPES = [straight, flat_at_first, steeper_later, flatter_later]


def one_by_one(peak: Callable[[int], int], limit: int, at_most: int) -> int:
    """The largest that fits, after all others were asked for."""
    return max((count for count in range(1, at_most + 1) if peak(count) <= limit), default=0)


@pytest.mark.parametrize("peak", SHAPES)
@pytest.mark.parametrize("at_most", [1, 2, 3, 40, MANY])
def test_few_counts_find_what_all_of_them_would(peak: Callable[[int], int], at_most: int) -> None:
    """For limits below, among and above all peaks; no count is asked for twice."""
    marks = sorted({peak(count) for count in (1, 2, 3, 29, 30, 31, 40, 999, MANY)})
    most = 4 if peak is straight else 3 * math.log2(at_most) + 3
    for limit in (limit for mark in marks for limit in (mark - 1, mark, mark + 1)):
        asked: list[int] = []

        def counted(count: int, asked: list[int] = asked) -> int:
            asked.append(count)
            return peak(count)

        found = most_that_fits(peak=counted, limit=limit, at_most=at_most)
        assert found == one_by_one(peak, limit, at_most)
        assert len(asked) == len(set(asked)) <= most


def test_a_forecast_counts_few_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of 12, at most eight are run on shapes, and the answer is that of all 12."""
    tokens = 32
    CONFIGURATIONS["llama"].save_pretrained(tmp_path)
    config = TrainingConfig(
        model=str(tmp_path),
        train_data="none.jsonl",
        epsilon=8.0,
        expected_batch_size=12,
        steps=2,
        lora_rank=2,
        dtype="float32",
        max_length=tokens,
        micro_batch_tokens=7 * tokens,
        per_example_gradients="materialize",
    )
    memory = forecast(config=config, dataset_size=999, machine=MACHINE).spreads["whole"].memory
    machine = replace(MACHINE, memory=memory.peak)
    counted: list[int] = []
    said: list[str] = []

    def run(**given: Any) -> MicroBatchCost:
        counted.append(given["examples"])
        return cost_of_micro_batch(**given)

    monkeypatch.setattr(forecasting, "cost_of_micro_batch", run)
    few = forecast(config=config, dataset_size=999, machine=machine, progress=said.append)
    assert len(counted) <= 8
    assert f"a micro-batch of 1 × {tokens} tokens" in said
    monkeypatch.setattr(forecasting, "most_that_fits", lambda **given: one_by_one(**given))
    assert forecast(config=config, dataset_size=999, machine=machine) == few
    assert {*range(1, few.largest_micro_batch + 2)} <= {*counted}
