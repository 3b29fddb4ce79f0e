"""What an engine's tests run: small plans, the open loop, and what reaches its optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from scipy import stats

from dpacc.errors import BudgetExhausted
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.engine import PrivacyEngine
from tests.tiny_models import collate, examples, tiny_model

LENGTHS = [7, 3, 12, 1, 9, 5, 5, 20, 2, 11]
Losses = Callable[[torch.nn.Module, Any], torch.Tensor]


class RecordingOptimizer(torch.optim.SGD):
    """Keeps every gradient it is given; with lr=0 it moves nothing."""

    def __init__(self, parameters: Any, *, lr: float = 0.0) -> None:
        super().__init__(parameters, lr=lr)
        self.received: list[torch.Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.received.append(torch.cat([p.grad.flatten().clone() for p in parameters]))
        super().step(closure)


def plan_for(size: int, **changes: Any) -> PrivacyPlan:
    settings: dict[str, Any] = {
        "dataset_size": size,
        "expected_batch_size": size,
        "steps": 3,
        "noise_multiplier": 0.5,
        "max_grad_norm": 1e-2,
        "target_delta": 1e-3,
    }
    return PrivacyPlan(**settings | changes)


def sum_noise(plan: PrivacyPlan) -> float:
    """σC, what the plan promises on every element of the sum."""
    return plan.noise_multiplier * plan.max_grad_norm


def noiseless(size: int, **changes: Any) -> PrivacyPlan:
    return plan_for(size, noise_multiplier=0.0, allow_no_privacy=True, **changes)


def prepared(
    plan: PrivacyPlan,
    ledger: Path,
    *,
    model: torch.nn.Module | None = None,
    lr: float = 0.0,
    seed: int | None = 3,
    **settings: Any,
) -> tuple[PrivacyEngine, torch.nn.Module, RecordingOptimizer]:
    model = model or tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan,
        ledger=ledger,
        **{"micro_batch_tokens": 4096, "fixed_seed": seed, **settings},
    )
    model, _ = engine.prepare(model, optimizer)
    return engine, model, optimizer


def updated(
    engine: PrivacyEngine,
    model: torch.nn.Module,
    data: Sequence[Any],
    *,
    losses: Losses = causal_lm_losses,
    units: Sequence[str] | None = None,
) -> Iterator[int]:
    """The open loop: the index of each step, once it is taken."""
    for step in engine.steps(data, collate, units=units):
        for batch in step:
            step.backward(losses(model, batch))
        step.update()
        yield step.index


def taken(
    engine: PrivacyEngine,
    model: torch.nn.Module,
    data: Sequence[Any],
    *,
    at_most: int | None = None,
    **loop: Any,
) -> list[int]:
    """The open loop as one process runs it to its end, or until it stops after some steps."""
    indices = list(itertools.islice(updated(engine, model, data, **loop), at_most))
    engine.close()
    return indices


def received(
    plan: PrivacyPlan,
    data: Sequence[Any],
    ledger: Path,
    *,
    losses: Losses = causal_lm_losses,
    **settings: Any,
) -> torch.Tensor:
    """The gradients, [steps, width], that reach the optimizer, times the expected batch size."""
    engine, model, optimizer = prepared(plan, ledger, **settings)
    taken(engine, model, data, losses=losses)
    return torch.stack(optimizer.received) * plan.expected_batch_size


def losses_without(example: dict[str, Any]) -> Losses:
    """The losses of all others; where this example is drawn, its own is zero."""
    words = torch.tensor(example["input_ids"])

    def losses(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        there = [not torch.equal(row[mask.bool()], words) for row, mask in rows]
        return causal_lm_losses(model, batch) * torch.tensor(there)

    return losses


def steps_after_a_kill(plan: PrivacyPlan, ledger: Path, *, killed_after: int) -> list[int]:
    """Those of a new process, whose secret is its own; a third one finds none left to take."""
    data = examples(LENGTHS)
    engine, model, _ = prepared(plan, ledger, seed=None)
    assert taken(engine, model, data, at_most=killed_after) == list(range(killed_after))
    engine, model, _ = prepared(plan, ledger, seed=None)
    indices = taken(engine, model, data)
    engine, model, _ = prepared(plan, ledger, seed=None)
    with pytest.raises(BudgetExhausted):
        taken(engine, model, data, at_most=1)
    return indices


def assert_noise(values: torch.Tensor, standard_deviation: float) -> None:
    scaled = (values.double() / standard_deviation).flatten()
    chi_square = stats.chi2(len(scaled)).cdf(float(scaled.square().sum()))
    assert 1e-5 < chi_square < 1 - 1e-5
    assert stats.kstest(scaled[:50_000].numpy(), "norm").pvalue > 1e-5
