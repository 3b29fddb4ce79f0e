"""Which runs each table of `utility.py` is made of."""

from __future__ import annotations

from dataclasses import replace

from utility_contenders import Run

EPSILONS = (1.0, 8.0, None)
"""None is a run without noise and clipping."""

SEEDS = (0, 1, 2)

_WHITENED = Run(
    tool="dpacc",
    epsilon=None,
    method="whitened",
    batch=512,
    steps=32,
    learning_rate=3e-3,
    average=0.5,
)

TOOLS = {
    "dpacc": _WHITENED,
    "dpacc, C = 3": replace(_WHITENED, max_grad_norm=3.0),
    "dpacc, plain LoRA": Run(
        tool="dpacc",
        epsilon=None,
        batch=128,
        steps=128,
        learning_rate=3e-3,
        average=0.5,
    ),
    "Opacus": Run(tool="Opacus", epsilon=None, batch=64, steps=256, learning_rate=3e-3),
    "Opacus, large batches": Run(
        tool="Opacus", epsilon=None, batch=512, steps=32, learning_rate=3e-3
    ),
    "dp-lora": Run(tool="dp-lora", epsilon=None, batch=64, steps=256, learning_rate=3e-3),
}
"""The same 16,384 gradient evaluations, two passes over 8,192 sentences."""

RATES = dict.fromkeys(TOOLS, (1e-3, 3e-3, 1e-2))

RANKS = (2, 4, 8, 16, 32)
MIDDLE_RANK = 8
METHODS = ("lora", "ffa")

_NO_CLIPPING = 1e6


def cell(tool: str, epsilon: float | None, rate: float, seed: int = 0) -> Run:
    """One run of a main cell."""
    run = replace(TOOLS[tool], epsilon=epsilon, learning_rate=rate, seed=seed)
    return run if epsilon is not None else replace(run, max_grad_norm=_NO_CLIPPING)


def ranked(method: str, rank: int, rate: float) -> Run:
    """A rank of a method at ε = 8, in a quarter of the steps; alpha is twice the rank."""
    run = cell("dpacc, plain LoRA", 8.0, rate)
    return replace(run, steps=32, method=method, rank=rank, alpha=2.0 * rank)


def levers(rate: float) -> dict[str, Run]:
    """The cell at ε = 1, and the same with one thing changed."""
    base = cell("dpacc, plain LoRA", 1.0, rate)
    return {
        "as in the main cells": base,
        "without averaging": replace(base, average=0.0),
        "without averaging, decaying rate": replace(base, average=0.0, decays=True),
        "SGD, batches of 512, C = 5": replace(
            base, batch=512, steps=32, momentum=0.9, learning_rate=0.3, max_grad_norm=5.0
        ),
        "batches of 64, 256 steps": replace(base, batch=64, steps=256),
        "batches of 512, 32 steps": replace(base, batch=512, steps=32),
        "clipping norm 4": replace(base, max_grad_norm=4.0),
        "automatic clipping": replace(base, clipping="automatic"),
        "FFA, rank 16": replace(base, method="ffa", rank=16, alpha=32.0),
        "B learns 4 times as fast (LoRA+)": replace(base, lift=4.0),
        "alpha 32": replace(base, alpha=32.0),
    }
