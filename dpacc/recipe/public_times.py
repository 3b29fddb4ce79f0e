"""Times that reports may show: how long a step takes follows how many examples it drew.

TensorBoard and Weights & Biases stamp every figure with the moment at which it was logged. Here
they stamp it with the start of the run and one second a step. What they cannot be told stays in the
hands of whoever watches a run live: moments at which lines arrive, files grow, or steps end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from accelerate import Accelerator

TRAINING_TIMES = frozenset({"train_runtime", "train_samples_per_second", "train_steps_per_second"})
"""What transformers reports of a training's duration."""

COMPUTED_WITHOUT_NOISE = TRAINING_TIMES | {"loss", "grad_norm", "train_loss", "total_flos"}
"""What it reports of private examples, those times among it."""

_DATED = "_dpacc_dated_by_steps"


def date_trackers(accelerator: Accelerator) -> None:
    """Let the trackers that `accelerator` has begun date what they log by its step."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            date_events(tracker.writer)
        elif tracker.name == "wandb" and tracker.tracker is not None:
            date_history(tracker.tracker)


def date_reports(callbacks: Iterable[Any]) -> None:
    """Let those of a Trainer's callbacks that write such reports date what they log by its step."""
    for callback in callbacks:
        writer = getattr(callback, "tb_writer", None)
        if writer is not None:
            date_events(writer)
        run = getattr(getattr(callback, "_wandb", None), "run", None)
        if run is not None:
            date_history(run)


def date_events(writer: Any) -> None:
    """Let a TensorBoard writer date every event by its step; a second call does nothing."""
    file = writer._get_file_writer()
    if getattr(file.add_event, _DATED, False):
        return
    begun, add_event = time.time(), file.add_event

    def add(event: Any, step: int | None = None, walltime: float | None = None) -> None:
        add_event(event, step, begun + (step or 0))

    setattr(add, _DATED, True)
    file.add_event = add


def date_history(run: Any) -> None:
    """Let a Weights & Biases run date every row by its step; a second call does nothing."""
    if getattr(run.log, _DATED, False):
        return
    begun, log = time.time(), run.log

    def dated(data: dict[str, Any], step: int | None = None, *rest: Any, **options: Any) -> None:
        at = step if step is not None else data.get("train/global_step", 0)
        log({**data, "_timestamp": begun + at}, step, *rest, **options)

    setattr(dated, _DATED, True)
    run.log = dated
