"""An Adam that begins at known noise moves by the same multiple of its gradient from the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.update_rule import begin_at_known_noise, step_noise
from tests.dpacc.step.engine_runs import LENGTHS, plan_for, prepared

STEPS, WIDTH = 40, 2000


def plan_of(column: tuple[float, ...]) -> PrivacyPlan:
    return PrivacyPlan(
        dataset_size=1000,
        expected_batch_size=10,
        steps=STEPS,
        noise_multiplier=2.0,
        max_grad_norm=0.5,
        target_delta=1e-4,
        sampling="cyclic-poisson" if len(column) > 1 else "poisson",
        noise_coefficients=column,
    )


COLUMN = (0.5, 0.48, 0.46, 0.44)


def found(plan: PrivacyPlan, *, known: bool) -> float:
    """How far a faint signal moved its coordinates, over how far noise alone spread the others."""
    weight = torch.nn.Parameter(torch.zeros(WIDTH))
    optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.0)
    if known:
        begin_at_known_noise(optimizer, plan=plan)
    noise = CorrelatedNoise(
        secret=RunSecret.from_fixed_seed(0), coefficients=plan.noise_coefficients
    )
    scale = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    signal = torch.zeros(WIDTH)
    signal[: WIDTH // 2] = 0.3 * scale
    for step in range(STEPS):
        row = torch.from_numpy(np.asarray(noise.row(step=step, count=WIDTH)))
        weight.grad = row * scale + signal
        optimizer.step()
    moved, spread = -weight.detach()[: WIDTH // 2], weight.detach()[WIDTH // 2 :]
    return float(moved.mean() / spread.std())


def test_one_steps_noise_is_as_large_as_is_said() -> None:
    """The root mean square of drawn rows, over all steps, in units of the averaged gradient."""
    plan = plan_of(COLUMN)
    noise = CorrelatedNoise(
        secret=RunSecret.from_fixed_seed(1), coefficients=plan.noise_coefficients
    )
    rows = np.stack([noise.row(step=t, count=20_000) for t in range(STEPS)])
    scale = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    assert step_noise(plan=plan) == pytest.approx(
        float(np.square(rows).mean() ** 0.5) * scale, 0.01
    )
    assert step_noise(plan=plan_of((1.0,))) == scale


def test_correlated_noise_cancels_in_it() -> None:
    """A faint signal stands out by half as much again as in Adam as it comes."""
    plan = plan_of(COLUMN)
    assert found(plan, known=True) > 1.5 * found(plan, known=False)


def test_its_first_step_is_as_long_as_its_gradient() -> None:
    """Linear in the gradient: twice as much moves twice as far, where Adam moves alike."""
    moved = []
    for size in (1.0, 2.0):
        weight = torch.nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0)
        begin_at_known_noise(optimizer, plan=plan_of(COLUMN))
        weight.grad = torch.full((3,), 1e-3 * size)
        optimizer.step()
        moved.append(float(weight.detach()[0]))
    assert moved[1] == pytest.approx(2 * moved[0], rel=1e-3)


def test_what_is_not_concerned_is_left_as_it_is() -> None:
    """Independent noise, other optimizers, and an Adam that took steps already."""
    weight = torch.nn.Parameter(torch.zeros(3))
    for optimizer, column in (
        (torch.optim.AdamW([weight]), (1.0,)),
        (torch.optim.SGD([weight], lr=0.1, momentum=0.9), COLUMN),
    ):
        begin_at_known_noise(optimizer, plan=plan_of(column))
        assert not optimizer.state
    begun = torch.optim.AdamW([weight])
    weight.grad = torch.ones(3)
    begun.step()
    begin_at_known_noise(begun, plan=plan_of(COLUMN))
    assert float(begun.state[weight]["step"]) == 1


def test_the_engine_begins_it_and_a_cut_state_is_refused(tmp_path: Path) -> None:
    """Whatever the loop, once it is prepared; where DeepSpeed cuts it, with the remedy."""
    plan = plan_for(
        len(LENGTHS),
        expected_batch_size=3,
        steps=6,
        sampling="cyclic-poisson",
        noise_coefficients=(0.75, 0.5, 0.3),
    )
    engine, model, _ = prepared(plan, tmp_path / "ledger.jsonl")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    engine.prepare(model, optimizer)
    (first, *_) = optimizer.param_groups[0]["params"]
    assert float(optimizer.state[first]["exp_avg_sq"].mean()) == pytest.approx(
        step_noise(plan=plan) ** 2
    )
    engine.close()
    with pytest.raises(ConfigurationError, match="optimizer=sgd"):
        begin_at_known_noise(torch.optim.AdamW([first]), plan=plan, cut=True)
