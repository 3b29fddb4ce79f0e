"""A 16-bit wire rounds what carries its noise, and nothing before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives
from dpacc.ranks.reduction import WireFormat, reduction_for
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, noiseless, plan_for
from tests.tiny_models import collate, examples, tiny_model


def released(plan: PrivacyPlan, ledger: Path, wire: WireFormat) -> torch.Tensor:
    """What reaches the optimizer in one step, times the expected batch size."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger, wire=wire, fixed_seed=3)
    engine.prepare(model, optimizer)
    for step in engine.steps(examples(LENGTHS), collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    return optimizer.received[0] * plan.expected_batch_size


@pytest.mark.parametrize("noise", ["gaussian", "discrete_gaussian"])
def test_the_optimizer_gets_the_noised_sum_in_eight_digits(noise: str, tmp_path: Path) -> None:
    """The bf16 wire's gradient is the fp32 wire's, every element rounded to nearest once."""
    plan = plan_for(len(LENGTHS), steps=1, expected_batch_size=8, noise=noise)
    exact = released(plan, tmp_path / "a.jsonl", "fp32")
    rounded = released(plan, tmp_path / "b.jsonl", "bf16")
    error = ((rounded - exact) / exact).abs()
    assert 2.0**-9 < float(error.max()) <= 2.0**-8 * 1.001


def test_nothing_is_rounded_before_its_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact clipped sum crosses first; what crosses in bf16 differs from it by noise."""
    crossed: list[tuple[str, torch.Tensor]] = []

    def spied(name: str, original: Callable[..., torch.Tensor]) -> Any:
        def call(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
            crossed.append((name, tensor.clone()))
            return original(accelerator, tensor)

        return call

    for name in ("sum_over_ranks", "share_of_sum", "gather_shares"):
        monkeypatch.setattr(collectives, name, spied(name, getattr(collectives, name)))
    clean = released(noiseless(len(LENGTHS), steps=1), tmp_path / "clean.jsonl", "fp32")
    crossed.clear()
    plan = plan_for(len(LENGTHS), steps=1)
    released(plan, tmp_path / "ledger.jsonl", "bf16")
    assert [name for name, _ in crossed] == ["share_of_sum", "gather_shares"]
    (_, clipped), (_, noised) = crossed
    assert clipped.dtype == torch.float32
    torch.testing.assert_close(clipped, clean, rtol=1e-6, atol=1e-9)
    assert noised.dtype == torch.bfloat16
    spread = float((noised.float() - clean).std())
    assert abs(spread / (plan.noise_multiplier * plan.max_grad_norm) - 1) < 0.1


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_shares_cover_the_sum_once(length: int) -> None:
    """Cut over three ranks and put together: every element once, filled up with zeros."""

    class Launched:
        num_processes = 3

        def __init__(self, process_index: int) -> None:
            self.process_index = process_index

    whole = torch.arange(1.0, length + 1)
    shares = [collectives.share_of(Launched(rank), whole) for rank in range(3)]  # type: ignore[arg-type]
    assert len({len(share) for share in shares}) == 1
    assert torch.equal(torch.cat(shares)[:length], whole)
    assert not torch.cat(shares)[length:].any()


def test_the_fp32_wire_hands_on_what_it_gets() -> None:
    """On one rank, nothing crosses and nothing changes."""
    wire = reduction_for(Accelerator(cpu=True), "fp32")
    values = torch.tensor([1.0 + 2.0**-20])
    assert torch.equal(wire.whole(wire.part(wire.sum(values))), values)
