"""The Trainer and the plain loop with random allocation: the engine's own, resumed by epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import RandomlyAllocated, read_ledger
from transformers import TrainerCallback

from dpacc import PrivacyEngine
from tests.dpacc.step.engine_runs import RecordingOptimizer, received
from tests.dpacc.trainer.test_private_trainer import PRIVATE, private, trainer
from tests.tiny_models import collate, tiny_model

ALLOCATED: dict[str, Any] = {"sampling": "allocated"}


class Killed(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_the_trainer_gets_the_engines_allocated_gradients(tmp_path: Path) -> None:
    """For the same seed, what the open loop hands to its optimizer."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    run = trainer(
        tmp_path / "run", model=model, optimizers=(optimizer, None), privacy=private(**ALLOCATED)
    )
    run.train()
    assert (run.plan.sampling, run.plan.steps, run.plan.participation.cycle) == ("allocated", 6, 3)
    expected = received(run.plan, PRIVATE, tmp_path / "ledger.jsonl")
    torch.testing.assert_close(torch.stack(optimizer.received) * 4, expected, rtol=1e-4, atol=1e-5)


def test_a_trainer_that_was_killed_goes_on_at_the_next_epoch(tmp_path: Path) -> None:
    """After step 1 of the epoch 0, 1, 2 it goes on at step 3, and its books say so."""
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
    saving["privacy"] = private(**ALLOCATED)
    broken = trainer(tmp_path, callbacks=[Killed()], **saving)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = trainer(tmp_path, **saving)
    done = resumed.train(resume_from_checkpoint=True)
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 3, 4, 5]
    assert done.global_step == 6
    paid = [release.event for release in record.releases]
    assert [isinstance(event, RandomlyAllocated) for event in paid] == [True, False, True] + [
        False
    ] * 2


@pytest.mark.parametrize("asked", [{"target_epsilon": 8.0}, {"noise_multiplier": 0.9}], ids=str)
def test_a_plain_loop_takes_whole_epochs(tmp_path: Path, asked: dict[str, float]) -> None:
    """Two passes of three steps: by the target's noise or one's own, and a charge an epoch."""
    model = tiny_model("llama")
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    begin = "make_private" if "noise_multiplier" in asked else "make_private_with_epsilon"
    model, optimizer, loader = getattr(engine, begin)(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2),
        data_loader=torch.utils.data.DataLoader(PRIVATE, batch_size=4, collate_fn=collate),
        target_delta=1e-3,
        max_grad_norm=1.0,
        epochs=2,
        sampling="allocated",
        **asked,
    )
    spent = []
    for _ in range(2):
        assert len(loader) == 3
        for batch in loader:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            spent.append(engine.guarantee().epsilon)
    assert (engine.plan.sampling, engine.steps_charged) == ("allocated", 6)
    assert spent[-1] == engine.plan.guarantee().epsilon
    assert len({*spent} - {0.0}) == 2
    if "target_epsilon" in asked:
        assert 7.9 < spent[-1] <= 8.0
    engine.close()
