"""What a step adds up: adaptive bounds that spend no more, and units larger than an example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dpacc.data.privacy_units import count_units
from dpacc.errors import ConfigurationError
from dpacc.layers.gradient_buffer import Layout
from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.accumulation import ClippedSum
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    assert_noise,
    noiseless,
    plan_for,
    prepared,
    received,
)
from tests.tiny_models import collate, examples

# --- adaptive clipping --------------------------------------------------------------------


def test_adaptive_clipping_spends_what_the_plan_says() -> None:
    """Sum and count are one Gaussian mechanism of multiplier σ: 1/σ_g² + (½/σ_b)² = 1/σ²."""
    plan = plan_for(100, expected_batch_size=40, clipping="adaptive", noise_multiplier=0.7)
    joint = plan.gradient_noise_multiplier**-2 + (0.5 / plan.count_noise) ** 2
    assert joint == pytest.approx(0.7**-2)
    assert plan.gradient_noise_multiplier > 0.7
    with pytest.raises(ValueError, match="count_noise_multiplier"):
        plan_for(100, clipping="adaptive", noise_multiplier=3.0, count_noise_multiplier=1.5)


def test_the_adaptive_bound_follows_the_noised_quantile(ledgers: Iterator[Path]) -> None:
    """A bound far too large shrinks and one far too small grows, by e^(±ηγ) a step at most."""
    data = examples([7, 3, 12, 9, 5])
    for start, direction in ((1e3, -1), (1e-6, +1)):
        plan = noiseless(
            len(data),
            steps=4,
            clipping="adaptive",
            max_grad_norm=start,
            count_noise_multiplier=1e-9,
        )
        engine, model, _ = prepared(plan, next(ledgers))
        for step in engine.steps(data, collate):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
        moved = torch.tensor(engine._release.bound.value / start).log().item()
        assert moved * direction == pytest.approx(4 * 0.2 * 0.5, rel=0.15)


def test_adaptive_noise_has_both_of_its_variances(ledgers: Iterator[Path]) -> None:
    """With a quantile rate of zero, gradients get σ_g·C: chi-square over steps and elements."""
    data = examples(LENGTHS)
    changes = {"steps": 30, "clipping": "adaptive", "quantile_learning_rate": 0.0}
    plan = plan_for(len(data), **changes)
    noised = received(plan, data, next(ledgers))
    clean = received(noiseless(len(data), **changes), data, next(ledgers))
    assert_noise(noised - clean, plan.gradient_noise_multiplier * plan.max_grad_norm)


# --- larger privacy units -----------------------------------------------------------------


@pytest.mark.parametrize("hold", [list, torch.tensor, lambda kept: list(torch.tensor(kept))])
def test_a_whole_user_changes_the_sum_by_at_most_c(
    ledgers: Iterator[Path], hold: Callable[[list[int]], Any]
) -> None:
    """A user with many examples weighs no more than one with a single example, whatever names
    whose they are."""
    data = examples([5, 7, 6, 9, 4, 8, 3])
    ann, bob, eve = 4, 7, 1
    users = [ann, bob, ann, ann, eve, ann, ann]

    def total(keep: list[int]) -> torch.Tensor:
        kept = [users[i] for i in keep]
        names = hold(kept)
        size = count_units(examples=len(keep), units=names)
        plan = noiseless(size, steps=1, max_grad_norm=0.05, unit="user")
        engine, model, optimizer = prepared(plan, next(ledgers), micro_batch_tokens=30)
        for step in engine.steps([data[i] for i in keep], collate, units=names):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
        return optimizer.received[0] * plan.expected_batch_size

    everyone = total(list(range(7)))
    without_ann = total([i for i in range(7) if users[i] != ann])
    difference = (everyone - without_ann).norm()
    assert 0.5 * 0.05 < difference <= 0.05 * (1 + 1e-5)


def test_units_must_fit_the_dataset_and_the_plan(ledgers: Iterator[Path]) -> None:
    """As many names as examples, and as many units as the plan was calibrated for."""
    data = examples([5, 7, 6])
    engine, _, _ = prepared(plan_for(2, unit="user"), next(ledgers))
    with pytest.raises(ConfigurationError, match="fewer units than examples"):
        next(engine.steps(data, collate, units=["ann", "bob"]))
    with pytest.raises(ConfigurationError, match="3 users and the plan dataset_size=2"):
        next(engine.steps(data, collate, units=["ann", "bob", "eve"]))


def test_a_sum_takes_memory_from_its_first_use_on() -> None:
    """So that it is not beside the gradients that the coupling probe holds; unused it is zero."""
    layout = Layout({"w": torch.nn.Parameter(torch.ones(2, 3))})
    plan = noiseless(4, steps=1)
    empty = ClippedSum(plan=plan, layout=layout, max_grad_norm=1.0, device=torch.device("cpu"))
    assert not any(isinstance(value, torch.Tensor) for value in vars(empty).values())
    assert torch.equal(empty.total, torch.zeros(6))
    assert empty.total is empty.total
