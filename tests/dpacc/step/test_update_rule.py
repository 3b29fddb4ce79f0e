"""A run is resumed by the optimizer and the scheduler that it was started with, or not at all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler

from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step import resume_program
from tests.tiny_models import collate, tiny_model

TWO_STEPS = PrivacyPlan(
    dataset_size=8,
    expected_batch_size=4,
    steps=2,
    noise_multiplier=0.5,
    max_grad_norm=0.1,
    target_delta=1e-3,
)
Optimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
Scheduler = Callable[[torch.optim.Optimizer], LRScheduler | None]


def adamw(groups: list[dict[str, Any]], **changes: Any) -> torch.optim.Optimizer:
    return AdamW(groups, **{"lr": 0.01} | changes)


def flat(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"params": [p for group in groups for p in group["params"]]}]


def halving(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 0.5**step)


def no_schedule(optimizer: torch.optim.Optimizer) -> None:
    return None


def engine_and_loop(
    folder: Path, make: Optimizer = adamw, schedule: Scheduler = halving
) -> tuple[PrivacyEngine, torch.nn.Module, LRScheduler | None]:
    """A prepared engine that keeps checkpoints."""
    model = tiny_model("llama")
    optimizer = make(resume_program.groups_of(model))
    scheduler = schedule(optimizer)
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        TWO_STEPS,
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints",
        fixed_seed=5,
    )
    engine.prepare(model, optimizer, scheduler)
    return engine, model, scheduler


def take_a_step(engine: PrivacyEngine, model: torch.nn.Module) -> None:
    step = next(engine.steps(resume_program.DATA, collate))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    step.update()


def begun(folder: Path, make: Optimizer = adamw, schedule: Scheduler = halving) -> Path:
    """A run of two steps that died after its first."""
    engine, model, _ = engine_and_loop(folder, make, schedule)
    take_a_step(engine, model)
    engine.close()
    return folder


@pytest.fixture(scope="module")
def with_adamw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under AdamW and LambdaLR that died after its first step."""
    return begun(tmp_path_factory.mktemp("adamw"))


def told_at_resume(folder: Path, make: Optimizer = adamw, schedule: Scheduler = halving) -> str:
    """Why a resume is refused; its ledger and checkpoints stay as they were."""
    engine, _, _ = engine_and_loop(folder, make, schedule)
    try:
        with pytest.raises(ConfigurationError) as refusal:
            engine.resume()
    finally:
        engine.close()
    return str(refusal.value)


@pytest.mark.parametrize(
    ("make", "schedule", "culprit"),
    [
        (partial(SGD, lr=0.01), halving, "optimizer=AdamW, and this resume has optimizer=SGD"),
        (partial(adamw, lr=0.5), halving, "lr=0.01, and this resume has group 0's initial_lr=0.5"),
        (partial(adamw, betas=(0.8, 0.9)), halving, "betas=[0.9, 0.999]"),
        (partial(adamw, weight_decay=0.5), halving, "weight_decay=0.01"),
        (lambda groups: adamw(groups[::-1]), halving, "group 0's adapters="),
        (
            lambda groups: adamw([p for g in groups for p in g["params"]]),
            halving,
            "groups=2, and this",
        ),
        (adamw, no_schedule, "scheduler=LambdaLR, and this resume has scheduler=none"),
        (adamw, partial(ExponentialLR, gamma=0.5), "has scheduler=ExponentialLR"),
    ],
    ids=["kind", "rate", "betas", "decay", "order", "groups", "no schedule", "another schedule"],
)
def test_another_optimizer_or_scheduler_is_refused(
    make: Optimizer, schedule: Scheduler, culprit: str, with_adamw: Path
) -> None:
    """Both what the run was started with and what came instead are named, in one line."""
    before = {p: p.read_bytes() for p in with_adamw.rglob("*") if p.is_file()}
    told = told_at_resume(with_adamw, make, schedule)
    assert culprit in told
    assert "resume with the settings that the run was started with" in told
    assert "\n" not in told
    kept = {p: p.read_bytes() for p in with_adamw.rglob("checkpoints/*") if p.is_file()}
    assert kept.items() <= before.items()


def test_other_settings_of_a_scheduler_are_refused(tmp_path: Path) -> None:
    """A rate that decays faster than it did, or a schedule where there was none."""
    folder = begun(tmp_path / "decaying", schedule=partial(ExponentialLR, gamma=0.5))
    told = told_at_resume(folder, schedule=partial(ExponentialLR, gamma=0.9))
    assert "scheduler's gamma=0.5, and this resume has scheduler's gamma=0.9" in told
    folder = begun(tmp_path / "constant", schedule=no_schedule)
    assert "scheduler=none, and this resume has scheduler=LambdaLR" in told_at_resume(folder)


def test_the_same_optimizer_resumes_wrapped_or_not(with_adamw: Path, tmp_path: Path) -> None:
    """Accelerate's wrappers are not another optimizer, nor is how AdamW computes."""
    folder = tmp_path / "copy"
    shutil.copytree(with_adamw, folder)

    def wrapped(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return AcceleratedOptimizer(adamw(groups, foreach=True))

    def wrapped_schedule(optimizer: torch.optim.Optimizer) -> Any:
        return AcceleratedScheduler(halving(optimizer.optimizer), optimizer)

    engine, _, _ = engine_and_loop(folder, wrapped, wrapped_schedule)
    try:
        assert engine.resume() == 1
    finally:
        engine.close()


def test_other_adapters_are_refused(with_adamw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA of another rank: the same names, other shapes."""
    monkeypatch.setattr(sys.modules[__name__], "tiny_model", partial(tiny_model, rank=2))
    assert "the checkpoint holds other adapters than the model" in told_at_resume(with_adamw)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_scheduler_that_keeps_another_time_is_refused(steps: int, tmp_path: Path) -> None:
    """Stepped less or more than once an update: a resume could not replay it."""
    engine, model, scheduler = engine_and_loop(tmp_path)
    take_a_step(engine, model)
    for _ in range(steps):
        scheduler.step()
    with pytest.raises(ConfigurationError, match=f"scheduler was stepped {steps} times in 1 upd"):
        engine.checkpoint()
    engine.close()
