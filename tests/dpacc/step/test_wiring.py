"""The engine uses its parts as they are meant: what each part's own tests cannot see."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from dpacc_accounting import epsilon, read_ledger
from scipy import stats

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.checkpoint import Checkpoints
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    RecordingOptimizer,
    noiseless,
    plan_for,
    prepared,
    received,
)
from tests.tiny_models import collate, examples, tiny_model


def shown_by_a_run(data: list[dict[str, Any]], ledger: Path, caplog: Any) -> str:
    """All that a run prints, warns or logs at any level."""
    out = io.StringIO()
    caplog.clear()
    with (
        caplog.at_level(logging.DEBUG),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        received(plan_for(len(data), expected_batch_size=4), data, ledger)
    lines = out.getvalue().splitlines() + [record.getMessage() for record in caplog.records]
    return "\n".join(line.replace(str(ledger), "LEDGER") for line in lines)


def test_nothing_that_is_shown_depends_on_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two datasets of one size: what is printed, logged and charged is the same."""
    short, long = examples(LENGTHS), examples([40, 2, 30] * 3 + [7], seed=8)
    assert len(short) == len(long)
    files = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    shown = [
        shown_by_a_run(each, file, caplog) for each, file in zip((short, long), files, strict=True)
    ]
    assert shown[0] == shown[1]
    charged = [[r.event for r in read_ledger(path=file).releases] for file in files]
    assert charged[0] == charged[1]


def test_adapters_replaced_while_training_stop_the_step(tmp_path: Path) -> None:
    """A second adapter, made active between backward and update: nothing is released."""
    engine, model, optimizer = prepared(plan_for(len(LENGTHS)), tmp_path / "a.jsonl")
    step = next(engine.steps(examples(LENGTHS), collate))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    model.add_adapter("late", model.peft_config["default"])
    model.set_adapter("late")
    with pytest.raises(PrivacyError, match="changed after prepare"):
        step.update()
    assert optimizer.received == []
    assert engine.steps_charged == 0


def test_a_raw_gradient_stops_the_step(tmp_path: Path) -> None:
    """A loss that uses an adapter's weight directly sends its gradient round the clip: refused."""
    engine, model, optimizer = prepared(plan_for(len(LENGTHS)), tmp_path / "a.jsonl")
    weight = next(p for n, p in model.named_parameters() if "lora_A" in n)
    step = next(engine.steps(examples(LENGTHS), collate))
    losses = causal_lm_losses(model, next(iter(step))) + weight.square().sum()
    with pytest.raises(PrivacyError, match="an unclipped gradient reached"):
        step.backward(losses)
    assert optimizer.received == []


def test_the_noise_of_a_run_is_white_across_steps(tmp_path: Path) -> None:
    """Noised minus clean sums of different steps are uncorrelated, at any distance."""
    data = examples(LENGTHS)
    noised = received(plan_for(len(data), steps=6), data, tmp_path / "a.jsonl")
    clean = received(noiseless(len(data), steps=6), data, tmp_path / "b.jsonl")
    correlations = np.corrcoef((noised - clean).numpy())
    off_diagonal = correlations[~np.eye(6, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(noised.shape[1])


def test_the_count_below_c_is_noised(tmp_path: Path) -> None:
    """Adaptive clipping sees the count through N(0, σ_b²): chi-square of C's moves over steps."""
    data, steps = examples([4] * 5), 60
    plan = plan_for(5, steps=steps, clipping="adaptive", max_grad_norm=1e12, noise_multiplier=1.0)
    engine, model, _ = prepared(plan, tmp_path / "a.jsonl")
    bounds = [plan.max_grad_norm]
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        bounds.append(engine._release.bound.value)
    # All gradients lie below such a C, so that without noise every move would be −η(1 − γ).
    surplus = np.diff(np.log(bounds)) / plan.quantile_learning_rate + 1 - plan.target_quantile
    counted = surplus * plan.expected_batch_size / plan.count_noise
    assert 1e-5 < stats.chi2(steps).cdf(np.square(counted).sum()) < 1 - 1e-5


def test_noise_beyond_the_first_chunk_is_keyed_too() -> None:
    """The noise of large adapters depends on the secret from end to end."""
    count = 600_000
    here, there = (
        standard_normals(secret=RunSecret.from_fixed_seed(seed), step=0, count=count)
        for seed in (1, 2)
    )
    for start in range(0, count, 50_000):
        part = slice(start, start + 50_000)
        assert abs(np.corrcoef(here[part], there[part])[0, 1]) < 5 / np.sqrt(50_000)


def test_the_journal_holds_what_was_released(tmp_path: Path) -> None:
    """What lies on disk between checkpoints is the noised gradient, to the bit."""
    data, plan = examples(LENGTHS), plan_for(len(LENGTHS), steps=2)
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    folder = tmp_path / "checkpoints"
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan, ledger=tmp_path / "a.jsonl", checkpoints=folder, fixed_seed=3
    )
    engine.prepare(model, optimizer)
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    entries = list(Checkpoints(folder).journalled(since=0))
    assert len(entries) == len(optimizer.received) == 2
    for entry, released in zip(entries, optimizer.received, strict=True):
        assert entry.gradient.equal(released)


def test_the_plans_epsilon_is_that_of_its_ledger(tmp_path: Path) -> None:
    """What the engine states after its run is what the ledger's releases cost, priced again."""
    data, ledger = examples(LENGTHS), tmp_path / "a.jsonl"
    plan = plan_for(len(data), noise_multiplier=3.0, expected_batch_size=5)
    received(plan, data, ledger)
    record = read_ledger(path=ledger)
    spent = epsilon(event=record.event, delta=plan.target_delta)
    assert plan.guarantee().epsilon == pytest.approx(spent.epsilon, rel=1e-6)
    thrice = epsilon(event=plan.event(steps=3), delta=plan.target_delta)
    assert spent.epsilon == pytest.approx(thrice.epsilon, rel=1e-6)
