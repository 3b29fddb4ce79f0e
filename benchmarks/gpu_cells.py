"""One cell of a GPU's tables: one tool, one model, one length; measured in a process of its own.

`serve` imports everything, then waits for its cell: the next process imports while the one before
it builds its model, and nobody imports while somebody is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

TOKENS_A_STEP = 8192


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured. `base` is bf16 or NF4; `compile` and `kernels` are as in `Work`."""

    shape: str
    base: str
    tool: str
    tokens: int
    compile: str = "none"
    kernels: str = "torch"
    checkpointing: bool = False
    tokens_a_step: int = TOKENS_A_STEP
    seconds: float = 3.0

    @property
    def name(self) -> str:
        """As the results and the progress have it."""
        words = [self.shape, self.base, f"{self.tokens} tokens", self.tool]
        words += [] if self.kernels == "torch" else [self.kernels]
        words += [] if self.compile == "none" else [f"compiled {self.compile}"]
        words += ["checkpointing"] if self.checkpointing else []
        return ", ".join(words)


def serve(pipe: Connection) -> None:
    """In a process of its own: "ready", a cell; "warm", a go-ahead; the cell's row."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import random_text_steps  # noqa: F401
    import torch

    if torch.cuda.is_available():
        torch.cuda.init()
    pipe.send("ready")
    with suppress(EOFError):
        cell = pipe.recv()

        def wait() -> None:
            pipe.send("warm")
            pipe.recv()

        try:
            pipe.send(measure(cell, wait))
        except Exception as error:
            out = isinstance(error, torch.OutOfMemoryError)
            said = " ".join(f"{type(error).__name__}: {error}".split())
            pipe.send({"failed": "out of memory" if out else said[:300]})


def measure(cell: Cell, wait: Callable[[], None]) -> dict[str, Any]:
    """Seconds of steps after two or, compiled, four; peak memory of all; busy share."""
    import torch
    from random_bases import DEVICE, random_base
    from random_text_steps import TOOLS, Work

    from dpacc.recipe.models import add_lora

    torch.manual_seed(0)
    started = time.monotonic()
    base = random_base(shape=cell.shape, quantized=cell.base == "NF4")
    adapted = add_lora(model=base, rank=16, alpha=32, gradient_checkpointing=cell.checkpointing)
    model = adapted.to(DEVICE).train()
    built = time.monotonic() - started
    at_once = cell.tokens_a_step if cell.shape != "llama-7b" else cell.tokens_a_step // 2
    work = Work(
        examples=cell.tokens_a_step // cell.tokens,
        tokens=cell.tokens,
        steps=1000,
        micro_batch_tokens=max(at_once, cell.tokens),
        compile=cell.compile,
        kernels=cell.kernels,
    )
    _reset_peak()
    steps = TOOLS[cell.tool](model, work)
    for _ in range(2 if cell.compile == "none" else 4):
        timed(steps)
    wait()
    seconds = [timed(steps) for _ in range(3)]
    while sum(seconds) < cell.seconds and len(seconds) < 50:
        seconds.append(timed(steps))
    peak = _peak()
    median = statistics.median(seconds)
    row = {
        "seconds": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "steps": len(seconds),
        "peak_gib": peak,
        "built_seconds": built,
        "busy": busy_seconds(steps) / median,
    }
    steps.close()  # type: ignore[attr-defined]
    return row


def timed(steps: Iterator[None]) -> float:
    """Seconds of one step, until the device has done it."""
    import torch

    start = time.perf_counter()
    next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def busy_seconds(steps: Iterator[None]) -> float:
    """For how long of one step any operation ran on the device, by torch's profiler."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        timed(steps)
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    ran = [
        (event.time_range.start, event.time_range.end)
        for event in found.events() or ()
        if event.device_type == device and not event.is_user_annotation
    ]
    return covered(ran) / 1e6


def covered(intervals: list[tuple[float, float]]) -> float:
    """The length of their union."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> float:
    """GiB allocated at most since it was reset; without a GPU, the process's most ever."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def cells(*, opake: bool, opacus: bool, settings: Collection[str]) -> list[Cell]:
    """All cells, those of most worth first.

    Args:
        opake: whether Opake is installed; it knows no quantized bases.
        opacus: likewise.
        settings: of dpacc's engine, among "compile" and "kernels".
    """
    fused, compiled = {"kernels": "triton"}, {"compile": "blocks"}
    ours: list[dict[str, str]] = [{"tool": "dpacc"}, {"tool": "dpacc ghost"}]
    faster: list[dict[str, str]] = []
    if "kernels" in settings:
        faster += [{**each, **fused} for each in ours]
    if "compile" in settings:
        faster += [{**each, **compiled} for each in ours]
    if {"kernels", "compile"} <= set(settings):
        faster = [{**ours[0], **fused, **compiled}, *faster]
    first = [{"tool": "PEFT"}, *ours, *faster[:3]]
    later = [*faster[3:], {"tool": "PEFT", "compile": "model"}]
    hooks = [{"tool": "Opacus hooks"}] if opacus else []
    ghost = [{"tool": "Opacus ghost"}] if opacus else []
    peer = [{"tool": "Opake"}] if opake else []
    small = [_model("smollm2-135m", "bf16"), _model("llama-1b", "bf16")]
    large, whole = _model("llama-7b", "NF4"), _model("llama-7b", "bf16")
    models, remade = [large, *small], {"checkpointing": True}
    asked = [{**m, **t} for m in models for t in first]
    asked += [{**large, **t, **remade} for t in [{"tool": "PEFT"}, *ours]]
    asked += [{**m, **t} for m in small for t in [*peer, *hooks]]
    asked += [{**large, **t} for t in hooks]
    asked += [{**whole, **t} for t in [*first, *peer, *hooks]]
    asked += [{**m, **t, "tokens": 2048} for m in models for t in first]
    asked += [{**m, **t} for m in models for t in later]
    asked += [{**large, **t, **remade, "tokens": 2048} for t in [{"tool": "PEFT"}, *ours]]
    asked += [{**m, **t} for m in [*models, whole] for t in ghost]
    asked += [{**whole, **t, "tokens": 2048} for t in [*first, *peer]]
    asked += [{**m, **t, "tokens": 2048} for m in small for t in [*peer, *hooks, *ghost]]
    asked += [{**large, **t, "tokens": 2048} for t in [*later, *hooks, *ghost]]
    asked += [{**m, **t, "base": "NF4"} for m in small for t in first]
    found = [Cell(**{"tokens": 512, **each}) for each in asked]
    return list(dict.fromkeys(found))


def _model(shape: str, base: str) -> dict[str, Any]:
    return {"shape": shape, "base": base}
