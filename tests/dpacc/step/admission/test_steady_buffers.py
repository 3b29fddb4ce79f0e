"""Buffers hold in training what they held before it, or nothing is released or saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import read_ledger
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.admission.steady_buffers import SteadyBuffers
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import RecordingOptimizer, plan_for
from tests.tiny_models import collate, examples, tiny_base, with_lora


class Counted(nn.Module):
    """Marks in a buffer that a long text came by, as it does for no invented example."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if states.shape[1] > 50:
            self.seen[1] += 1
        return self.inner(states)


def counted_model() -> nn.Module:
    base: Any = tiny_base("llama").requires_grad_(False)
    base.model.norm = Counted(base.model.norm)
    return with_lora(base, "llama", targets=["q_proj", "v_proj"])


def test_a_buffer_that_changes_in_training_stops_step_and_save(tmp_path: Path) -> None:
    """What the probe could not see stops the step before its charge, and every save after."""
    model, data, ledger = counted_model(), examples([60] * 4), tmp_path / "ledger.jsonl"
    engine = PrivacyEngine(Accelerator(cpu=True), plan_for(len(data), steps=1), ledger=ledger)
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine.prepare(model, optimizer)
    with engine.whole_adapters():
        pass
    step = next(engine.steps(data, collate))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    with pytest.raises(PrivacyError, match=r"norm\.seen changed in training"):
        step.update()
    with pytest.raises(PrivacyError, match=r"norm\.seen changed in training"):
        engine.whole_adapters()
    assert read_ledger(path=ledger).releases == ()
    assert optimizer.received == []
    engine.close()


@pytest.mark.parametrize(
    "buffer",
    [
        torch.arange(6.0),
        torch.zeros(3, 2, dtype=torch.bfloat16),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(2, dtype=torch.complex64),
        torch.tensor(0.5),
        torch.zeros(1 << 23),
    ],
)
def test_any_change_of_a_buffer_is_seen(buffer: torch.Tensor) -> None:
    """Of one element, of two that change places, of shape or dtype, a new one or one that left."""
    model = nn.Module()
    model.register_buffer("held", buffer)
    steady = SteadyBuffers(model)
    steady.require_unchanged()
    buffer.view(-1)[-1] = 1
    with pytest.raises(PrivacyError, match="held changed"):
        steady.require_unchanged()
    steady.settle()
    steady.require_unchanged()
    model.register_buffer("later", torch.zeros(1))
    with pytest.raises(PrivacyError, match="later changed"):
        steady.require_unchanged()
    del model.later
    steady.require_unchanged()
    del model.held
    with pytest.raises(PrivacyError, match="held changed"):
        steady.require_unchanged()


def test_elements_that_change_places_are_seen() -> None:
    """The same numbers in another order are another content."""
    model = nn.Module()
    model.register_buffer("held", torch.arange(6.0))
    steady = SteadyBuffers(model)
    model.held.copy_(model.held.flip(0))
    with pytest.raises(PrivacyError, match="held changed"):
        steady.require_unchanged()
