"""A seeded run that dies where it is told, for `test_resumption`; started again, it resumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dpacc import checkpoint, ranks
from dpacc.books import Books
from dpacc.checkpoint import Checkpoints
from dpacc.engine import PrivacyEngine
from dpacc.losses import causal_lm_losses
from dpacc.plan import PrivacyPlan
from tests.dpacc.backend_program import join
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
    "before the charge": (Books, "charge", ""),
    "before the journal": (Checkpoints, "journal", ""),
    "before the journal's entry has its name": (Path, "rename", "journal/"),
    "before the update": (torch.optim.AdamW, "step", ""),
    "before a rank keeps its part": (Checkpoints, "keep_part", ""),
    "before a checkpoint": (Checkpoints, "save", ""),
    "amid a checkpoint": (checkpoint, "write_durably", "checkpoint.json"),
    "before a checkpoint has its name": (Path, "rename", "step-"),
    "after a checkpoint, before the old is dropped": (Checkpoints, "_forget_before", ""),
}
"""The function, and what its arguments must mention to be counted."""

DEATHS = [
    ("before the charge", 5, False),
    ("before the journal", 5, True),
    ("before the journal's entry has its name", 5, True),
    ("before the update", 5, False),
    ("before the update", 1, False),
    ("before a rank keeps its part", 2, False),
    ("before a checkpoint", 2, False),
    ("amid a checkpoint", 2, False),
    ("before a checkpoint has its name", 1, False),
    ("before a checkpoint has its name", 2, False),
    ("after a checkpoint, before the old is dropped", 2, False),
]
"""Which call dies, and whether the step in flight was charged but not yet journalled."""


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


def run(folder: Path, backend: str = "plain") -> None:
    """Train, resuming if the folder was started before; leave the adapters in `final`."""
    accelerator, explicit = join(backend)
    model = tiny_model("llama")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    started_before = ranks.share_from_main((folder / "ledger.jsonl").exists())
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


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_at(sys.argv[3], int(sys.argv[4]), lambda: os._exit(9))
    run(Path(sys.argv[1]), sys.argv[2])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
