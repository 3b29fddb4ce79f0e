"""The mean of the last iterates is exactly that, also over a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.averaging import IterateAverage, average_of, share_for
from dpacc.step.engine import PrivacyEngine
from tests.tiny_models import collate, tiny_model


def trained(model: nn.Module) -> torch.Tensor:
    """Every trainable number of a model, as it is now."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def averaged_by_an_open_loop(
    plan: PrivacyPlan, data: Sequence[Any], ledger: Path, *, share: float, lr: float
) -> torch.Tensor:
    """The averaged adapters of a tiny Llama, by recipes/train.py's calls in its order."""
    accelerator, model = Accelerator(cpu=True), tiny_model("llama")
    optimizer: Any = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    average = average_of(optimizer, steps=plan.steps, share=share, accelerator=accelerator)
    assert average is not None
    engine = PrivacyEngine(accelerator, plan, ledger=ledger, fixed_seed=3)
    model, optimizer = engine.prepare(model, optimizer)
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        if step.index + 1 == plan.steps:
            average.put_in_place()
    engine.close()
    return trained(model)


def steps_of(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: range) -> list[float]:
    """Take steps with gradients of their own; where each led."""
    seen = []
    for step in steps:
        weight.grad = torch.tensor([(step % 3 - 1.5) * (step + 1)])
        optimizer.step()
        seen.append(weight.item())
    return seen


class Extended(torch.optim.SGD):
    """Extends the step of its parent, so that torch runs the hooks of both."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


@pytest.mark.parametrize(
    ("share", "averaged"), [(0.5, 5), (1.0, 10), (0.05, 1), (0.25, 3), (0.9, 9)]
)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, Extended])
def test_the_last_iterates_are_averaged(
    kind: type[torch.optim.Optimizer], share: float, averaged: int
) -> None:
    """Of T = 10 steps the last ceil(share · T) count, with the same weight each."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = kind([weight], lr=0.1)  # type: ignore[call-arg]
    average = IterateAverage(optimizer, steps=10, share=share)
    seen = steps_of(optimizer, weight, range(10))
    assert len(set(seen)) == 10
    average.put_in_place()
    assert weight.item() == pytest.approx(sum(seen[-averaged:]) / averaged)


def test_the_iterates_themselves_are_as_without_it() -> None:
    """Adding up changes no step: it is post-processing."""
    plain, watched = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    without = torch.optim.AdamW([plain], lr=0.1)
    with_it = torch.optim.AdamW([watched], lr=0.1)
    IterateAverage(with_it, steps=6, share=1.0)
    assert steps_of(without, plain, range(6)) == steps_of(with_it, watched, range(6))


def test_a_resumed_run_averages_what_came_before() -> None:
    """The sums travel in the optimizer's state, as checkpoints keep it."""
    whole = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([whole], lr=0.1)
    uninterrupted = IterateAverage(optimizer, steps=8, share=0.75)
    steps_of(optimizer, whole, range(8))
    uninterrupted.put_in_place()

    first = nn.Parameter(torch.ones(1))
    before = torch.optim.AdamW([first], lr=0.1)
    IterateAverage(before, steps=8, share=0.75)
    steps_of(before, first, range(5))
    second = nn.Parameter(first.detach().clone())
    after = torch.optim.AdamW([second], lr=0.1)
    resumed = IterateAverage(after, steps=8, share=0.75)
    after.load_state_dict(before.state_dict())
    steps_of(after, second, range(5, 8))
    resumed.put_in_place()
    assert second.item() == whole.item() != 1.0


def test_without_steps_nothing_changes() -> None:
    """A run that took no step in the averaged share keeps its last adapter."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    average = IterateAverage(optimizer, steps=8, share=0.5)
    last = steps_of(optimizer, weight, range(3))[-1]
    average.put_in_place()
    assert weight.item() == last


def test_an_optimizer_cut_over_ranks_is_refused() -> None:
    """Under DeepSpeed no rank sees whole parameters step; the remedy is named."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    launch = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=object()))
    with pytest.raises(ConfigurationError, match=r"set it to 0, or launch with .*ddp\.yaml"):
        average_of(optimizer, steps=4, share=0.5, accelerator=launch)  # type: ignore[arg-type]
    assert average_of(optimizer, steps=4, share=0.0, accelerator=launch) is None  # type: ignore[arg-type]


def test_a_share_that_nobody_set_is_a_half_where_it_can_be() -> None:
    """Half of the steps count, and none under DeepSpeed; what was set is taken as it is."""
    cut: Any = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=object()))
    whole = Accelerator(cpu=True)
    assert [share_for(None, accelerator=each) for each in (whole, cut)] == [0.5, 0.0]
    assert [share_for(0.25, accelerator=each) for each in (whole, cut)] == [0.25, 0.25]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    """Below 0, above 1, or no number."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ConfigurationError, match="average_iterates"):
        average_of(optimizer, steps=4, share=share, accelerator=Accelerator(cpu=True))
