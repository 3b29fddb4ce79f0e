"""The Trainer and the plain loop with correlated noise: the engine's own, and resumed in cycles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import epsilon, read_ledger
from transformers import TrainerCallback

from dpacc import PrivacyEngine
from dpacc.errors import ConfigurationError
from tests.dpacc.step.engine_runs import RecordingOptimizer, received
from tests.dpacc.trainer.test_private_trainer import PRIVATE, private, trainer
from tests.tiny_models import collate, tiny_model

BANDED: dict[str, Any] = {
    "noise_multiplier": None,
    "target_epsilon": 8.0,
    "correlation": "banded",
    "bands": 2,
}


class Killed(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_the_trainer_gets_the_engines_correlated_gradients(tmp_path: Path) -> None:
    """For the same seed, what the open loop hands to its optimizer; ε is the target's."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    run = trainer(
        tmp_path / "run", model=model, optimizers=(optimizer, None), privacy=private(**BANDED)
    )
    run.train()
    assert (run.plan.bands, run.plan.sampling, run.plan.steps) == (2, "cyclic-poisson", 6)
    assert 7.9 < run.plan.guarantee().epsilon <= 8.0
    expected = received(run.plan, PRIVATE, tmp_path / "ledger.jsonl")
    torch.testing.assert_close(torch.stack(optimizer.received) * 4, expected, rtol=1e-4, atol=1e-5)


def test_a_trainer_that_was_killed_goes_on_at_the_next_cycle(tmp_path: Path) -> None:
    """After step 2 of the cycle 2, 3 it goes on at step 4, and its books say so."""
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    saving["privacy"] = private(**BANDED)
    broken = trainer(tmp_path, callbacks=[Killed()], **saving)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = trainer(tmp_path, **saving)
    done = resumed.train(resume_from_checkpoint=True)
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 4, 5]
    assert done.global_step == 6
    assert epsilon(event=record.event, delta=1e-3).epsilon <= 8.0


def test_a_plain_loop_takes_correlated_noise(tmp_path: Path) -> None:
    """make_private_with_epsilon finds it, and its ledger holds one charge a cycle."""
    model = tiny_model("llama")
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    model, optimizer, loader = engine.make_private_with_epsilon(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2),
        data_loader=torch.utils.data.DataLoader(PRIVATE, batch_size=4, collate_fn=collate),
        target_epsilon=8.0,
        target_delta=1e-3,
        max_grad_norm=1.0,
        steps=6,
        correlation="banded",
        bands=2,
    )
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    assert (engine.plan.bands, engine.steps_charged) == (2, 6)
    assert 7.9 < engine.guarantee().epsilon <= 8.0
    engine.close()


def test_correlated_noise_of_ones_own_multiplier_is_refused() -> None:
    """It is found for a target; whoever has coefficients gives a plan."""
    arguments = private(**{**BANDED, "noise_multiplier": 1.0, "target_epsilon": None})
    with pytest.raises(ConfigurationError, match="found for target_epsilon"):
        arguments.plan(dataset_size=10, expected_batch_size=4, steps=6)
