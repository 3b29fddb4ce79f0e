"""One cell of a GPU's tables: one tool, one model, one length; measured in a process of its own.

`serve` imports everything, then waits for its cell: the next process imports while the one before
it builds its model, and nobody imports while somebody is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

TOKENS_A_STEP = 8192


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured. `base` is bf16 or NF4; `compile` none, blocks or step."""

    shape: str
    base: str
    tool: str
    tokens: int
    compile: str = "none"
    checkpointing: bool = False
    tokens_a_step: int = TOKENS_A_STEP
    seconds: float = 3.0

    @property
    def name(self) -> str:
        """As the results and the progress have it."""
        words = [self.shape, self.base, f"{self.tokens} tokens", self.tool]
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
    """Seconds of steps after two or, compiled, four; peak memory; how long the device was busy."""
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
    )
    steps = TOOLS[cell.tool](model, work)
    for _ in range(2 if cell.compile == "none" else 4):
        timed(steps)
    _reset_peak()
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


def cells(*, opake: bool, opacus: bool, compiles: bool, triton: bool) -> list[Cell]:
    """All cells, those of most worth first.

    Args:
        opake: whether Opake is installed; it knows no quantized bases.
        opacus: likewise.
        compiles: whether dpacc's engine has that setting.
        triton: whether dpacc's kernels can run here.
    """
    modes = [("dpacc", "blocks"), ("dpacc", "step")] if compiles else []
    fused = [("dpacc, Triton", "none"), ("dpacc ghost, Triton", "none")] if triton else []
    first = [("PEFT", "none"), ("dpacc", "none"), *modes[1:], ("dpacc ghost", "none"), *fused]
    later = [*modes[:1], ("PEFT", "step")]
    hooks = [("Opacus hooks", "none")] if opacus else []
    ghost = [("Opacus ghost", "none")] if opacus else []
    peer = [("Opake", "none")] if opake else []
    models = [("llama-7b", "NF4"), ("smollm2-135m", "bf16"), ("llama-1b", "bf16")]
    whole = [*models, ("llama-7b", "bf16")]
    asked = [(*m, 512, *t) for m in models for t in first]
    asked += [
        (*m, 512, *t) for m in models for t in [*peer, *hooks] if t[0] != "Opake" or m[1] != "NF4"
    ]
    asked += [("llama-7b", "bf16", 512, *t) for t in [*first, *peer]]
    asked += [(*m, 2048, *t) for m in models for t in first[:2]]
    asked += [(*m, 512, *t) for m in models for t in later]
    asked += [(*m, 2048, *t) for m in whole for t in [*first, *later]]
    asked += [(*m, tokens, *t) for tokens in (512, 2048) for m in whole for t in [*hooks, *ghost]]
    asked += [(*m, 2048, *t) for m in whole[1:] for t in peer]
    asked += [(shape, "NF4", 512, *t) for shape in ("smollm2-135m", "llama-1b") for t in first]
    kept = [
        Cell(shape="llama-7b", base="NF4", tool=tool, tokens=tokens, checkpointing=True)
        for tokens in (512, 2048)
        for tool in ("PEFT", "dpacc", "dpacc ghost")
    ]
    plain = [
        Cell(shape=shape, base=base, tokens=tokens, tool=tool, compile=how)
        for shape, base, tokens, tool, how in asked
    ]
    best = len(models) * len(first)
    return list(dict.fromkeys([*plain[:best], *kept[:3], *plain[best:], *kept[3:]]))
