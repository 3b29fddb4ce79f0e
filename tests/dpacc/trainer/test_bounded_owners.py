"""The Trainer and the plain loop with a bound on each owner's examples: the engine's own draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import MixtureOfGaussians, PoissonSampled, read_ledger

from dpacc import PrivacyEngine
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.step.engine_runs import RecordingOptimizer, prepared
from tests.dpacc.trainer.test_private_trainer import PRIVATE, private, trainer
from tests.tiny_models import collate, tiny_model

OWNERS = ["ann", "bob", "ann", "dan", "eve", "bob", "ann", "eve", "zoe", "ann"]
KEPT = {"poisson": 5, "examples": 8}
"""N with at most two examples each: owners, or the examples that are kept of them."""


def bounded(sampling: str) -> dict[str, Any]:
    return {"unit": "patient", "unit_cap": 2, "sampling": sampling}


@pytest.mark.parametrize("sampling", KEPT)
def test_the_trainer_gets_the_engines_bounded_gradients(tmp_path: Path, sampling: str) -> None:
    """For the same seed, what the open loop hands to its optimizer."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    run = trainer(
        tmp_path / "run",
        model=model,
        optimizers=(optimizer, None),
        units=OWNERS,
        privacy=private(**bounded(sampling)),
        per_device_train_batch_size=2,
    )
    assert (run.plan.dataset_size, run.plan.unit_cap) == (KEPT[sampling], 2)
    run.train()
    engine, alone, known = prepared(run.plan, tmp_path / "ledger.jsonl")
    for step in engine.steps(PRIVATE, collate, units=OWNERS):
        for batch in step:
            step.backward(causal_lm_losses(alone, batch))
        step.update()
    engine.close()
    torch.testing.assert_close(optimizer.received, known.received, rtol=1e-4, atol=1e-5)
    (event,) = {each.event for each in read_ledger(path=engine.ledger).releases}
    kind = {"poisson": PoissonSampled, "examples": MixtureOfGaussians}[sampling]
    assert isinstance(event, kind)


@pytest.mark.parametrize("sampling", KEPT)
@pytest.mark.parametrize("asked", [{"target_epsilon": 8.0}, {"noise_multiplier": 0.9}], ids=str)
def test_a_plain_loop_counts_what_is_kept(
    tmp_path: Path, asked: dict[str, float], sampling: str
) -> None:
    """The loader's examples by their owners, for the target's noise or one's own."""
    model = tiny_model("llama")
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    begin = "make_private" if "noise_multiplier" in asked else "make_private_with_epsilon"
    model, optimizer, loader = getattr(engine, begin)(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2),
        data_loader=torch.utils.data.DataLoader(PRIVATE, batch_size=2, collate_fn=collate),
        target_delta=1e-3,
        max_grad_norm=1.0,
        epochs=1,
        units=OWNERS,
        **bounded(sampling),
        **asked,
    )
    for batch in loader:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    size = KEPT[sampling]
    assert (engine.plan.dataset_size, engine.steps_charged) == (size, -(-size // 2))
    assert engine.guarantee().epsilon == engine.plan.guarantee().epsilon
    assert engine.guarantee().unit == "patient"
    engine.close()
