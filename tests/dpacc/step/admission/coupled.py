"""Ways in which one example moves its neighbours' gradients: how far, and that each is refused.

Every case has two data sets of which one holds one example more, and measures by how much their
un-noised sums differ, in units of C, where 1 is promised. C is the largest own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.engine import PrivacyEngine
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import materialize
from tests.dpacc.step.engine_runs import RecordingOptimizer, plan_for
from tests.tiny_models import (
    collate,
)

Losses = Callable[[nn.Module, Any], torch.Tensor]
Collate = Callable[[list[Any]], Any]


def farthest(
    model: nn.Module,
    data: Sequence[Any],
    extra: Any,
    *,
    losses: Losses = causal_lm_losses,
    collate: Collate = collate,
) -> float:
    """‖S(D ∪ {x}) − S(D)‖ / C of clipped sums, all examples in one micro-batch."""
    gradients = materialize(model)
    bound = max(float(_rows(gradients, model, [each], losses, collate).norm()) for each in data)

    def total(examples: list[Any]) -> torch.Tensor:
        rows = _rows(gradients, model, examples, losses, collate)
        return (rows * (bound / rows.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1.0)).sum(0)

    moved = float((total([*data, extra]) - total([*data])).norm()) / bound
    print(f"{moved:.1f} C")
    return moved


def _rows(
    gradients: Materialize, model: nn.Module, examples: list[Any], losses: Losses, collate: Collate
) -> torch.Tensor:
    return gradients.rows(losses(model, collate(examples))).clone()


def train(
    model: nn.Module,
    data: Sequence[Any],
    folder: Path,
    *,
    losses: Losses = causal_lm_losses,
    collate: Collate = collate,
    probe_examples: Sequence[Any] | None = None,
) -> None:
    """One private step on the data."""
    plan, ledger = plan_for(len(data), steps=1), folder / f"{len(list(folder.iterdir()))}.jsonl"
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger)
    engine.prepare(model, RecordingOptimizer([p for p in model.parameters() if p.requires_grad]))
    for step in engine.steps(data, collate, probe_examples=probe_examples):
        for batch in step:
            step.backward(losses(model, batch))
        step.update()
    engine.close()


def token_mean(model: nn.Module, batch: Any) -> torch.Tensor:
    counts = (batch["labels"][:, 1:] != -100).sum(dim=1)
    return causal_lm_losses(model, batch) * counts / counts.float().mean()
