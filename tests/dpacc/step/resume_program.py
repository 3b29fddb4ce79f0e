"""A seeded run that dies where it is told, for `test_resumption`; started again, it resumes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives
from dpacc.step import checkpoint
from dpacc.step.checkpoint import Checkpoints
from dpacc.step.engine import PrivacyEngine
from dpacc.step.run_ledger import RunLedger
from tests.dpacc.ranks.backend_program import join
from tests.tiny_models import collate, examples, tiny_model

STEPS, CHECKPOINT_EVERY = 7, 3
DATA = examples([4, 6, 3, 5, 8, 2, 7, 5])
PLAN = PrivacyPlan(
    dataset_size=8,
    expected_batch_size=4,
    steps=STEPS,
    noise_multiplier=0.5,
    max_grad_norm=0.1,
    target_delta=1e-3,
    clipping="adaptive",
)

PLACES: dict[str, tuple[Any, str, str]] = {
    "before the reduction": (collectives, "sum_over_ranks", ""),
    "before the charge": (RunLedger, "charge", ""),
    "before the journal": (Checkpoints, "journal", ""),
    "before the journal's entry has its name": (Path, "rename", "journal/"),
    "before the update": (torch.optim.AdamW, "step", ""),
    "amid the update": (import_module("torch.optim.adam"), "adam", ""),
    "between update and schedule": (torch.optim.lr_scheduler.LambdaLR, "step", ""),
    "before a rank keeps its part": (Checkpoints, "keep_part", ""),
    "before a checkpoint": (Checkpoints, "save", ""),
    "amid a checkpoint": (checkpoint, "_write", "checkpoint.json"),
    "before a checkpoint has its name": (Path, "rename", "step-"),
    "after a checkpoint, before the old is dropped": (Checkpoints, "_forget_before", ""),
}
"""The function, and what its arguments must mention to be counted."""

DEATHS = [
    ("before the reduction", 5, False),
    ("before the charge", 5, False),
    ("before the journal", 5, True),
    ("before the journal's entry has its name", 5, True),
    ("before the update", 5, False),
    ("before the update", 1, False),
    ("amid the update", 10, False),
    ("between update and schedule", 6, False),
    ("before a rank keeps its part", 2, False),
    ("before a checkpoint", 2, False),
    ("amid a checkpoint", 2, False),
    ("before a checkpoint has its name", 1, False),
    ("before a checkpoint has its name", 2, False),
    ("after a checkpoint, before the old is dropped", 2, False),
]
"""Which call dies, and whether the step in flight was charged but not yet journalled.

An update calls AdamW's own function for LoRA's A, then for its B; a schedule's first step is its
making.
"""


def die_at(place: str, call: int, die: Callable[[], None]) -> Callable[[], None]:
    """Make the `call`-th call there the last one; returns what undoes it."""
    owner, name, about = PLACES[place]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += not about or about in " ".join(map(str, arguments[:2]))
        if calls == call:
            die()
        return original(*arguments, **named)

    setattr(owner, name, dying)
    return lambda: setattr(owner, name, original)


def groups_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """LoRA's A and its B as groups of their own, which an optimizer updates one after another."""
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return [
        {"params": [p for name, p in adapters.items() if factor in name]}
        for factor in ("lora_A", "lora_B")
    ]


def run(folder: Path, backend: str = "plain") -> None:
    """Train, resuming if the folder was started before; leave the adapters in `final`."""
    accelerator, explicit = join(backend)
    model = tiny_model("llama")
    optimizer = torch.optim.AdamW(groups_of(model), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    started_before = collectives.share_from_main((folder / "ledger.jsonl").exists())
    engine = PrivacyEngine(
        accelerator,
        PLAN,
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints",
        fixed_seed=5,
        backend=explicit,
    )
    try:
        engine.prepare(model, optimizer, schedule)
        if started_before:
            engine.resume()
        for step in engine.steps(DATA, collate):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            schedule.step()
            if (step.index + 1) % CHECKPOINT_EVERY == 0:
                engine.checkpoint()
    finally:
        engine.close()
    with engine.whole_adapters():
        adapters = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    if accelerator.is_main_process:
        save_file(adapters, folder / "final.safetensors")
