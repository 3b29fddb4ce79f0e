"""Which runs the tables of `frontier.py` are made of."""

from __future__ import annotations

from dataclasses import replace

from utility_contenders import Run

EPSILONS = (1.0, 3.0, 8.0, None)
"""None is a run without noise and clipping."""

SEEDS = 3
EPOCHS = 3
_NO_CLIPPING = 1e6

_MODEL = Run(tool="dpacc", epsilon=None, batch=128, steps=0, learning_rate=0.0, average=0.5)
_OPACUS = Run(tool="Opacus", epsilon=None, batch=64, steps=0, learning_rate=0.0)

_OPAKE = Run(tool="Opake", epsilon=None, batch=128, steps=0, learning_rate=0.0)

MODELLING = {
    "dpacc, lora": _MODEL,
    "dpacc, whitened": replace(_MODEL, method="whitened"),
    "dpacc, lora, banded": replace(_MODEL, plan={"correlation": "banded"}),
    "Opacus": _OPACUS,
    "Opacus, large batches": replace(_OPACUS, batch=128),
    "Opake": _OPAKE,
    "Opake, 4 bands": replace(_OPAKE, plan={"bands": 4}),
    "Opake, 8 bands": replace(_OPAKE, plan={"bands": 8}),
}
"""Rows of the tables of perplexity; steps and rate are put in."""

JUDGING = {
    "dpacc, lora": _MODEL,
    "dpacc, whitened": replace(_MODEL, method="whitened", batch=512),
    "Opacus": _OPACUS,
    "Opacus, large batches": replace(_OPACUS, batch=512),
    "Opake": _OPAKE,
    "Opake, 8 bands": replace(_OPAKE, plan={"bands": 8}),
}
"""Rows of the tables of accuracy."""

ROWS = {
    "chats": MODELLING,
    "reviews": MODELLING,
    "openings": MODELLING,
    "sentiment": JUDGING,
    "endings": JUDGING,
    "sentences": JUDGING,
    "emails": JUDGING,
}
RATES = (1e-3, 3e-3, 1e-2)
"""The same for all; whoever is best at an end of them is tried beyond it, too (`widened`)."""


def cell(row: Run, *, epsilon: float | None, learned: int, rate: float, seed: int = 0) -> Run:
    """One run of a row, with three passes over the texts."""
    steps = EPOCHS * learned // row.batch
    norm = row.max_grad_norm if epsilon is not None else _NO_CLIPPING
    return replace(
        row, epsilon=epsilon, steps=steps, learning_rate=rate, seed=seed, max_grad_norm=norm
    )


def widened(best: float, tried: tuple[float, ...]) -> float | None:
    """The next rate to try where the best so far is the smallest or the largest; at most 0.1.

    >>> widened(1e-2, (1e-3, 3e-3, 1e-2))
    0.03
    >>> widened(3e-3, (1e-3, 3e-3, 1e-2)) is None
    True
    """
    known = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    at = known.index(best)
    if best == max(tried) and at + 1 < len(known):
        return known[at + 1]
    if best == min(tried) and at > 0:
        return known[at - 1]
    return None


def limits(row: Run, *, epsilon: float, learned: int, rate: float) -> dict[str, Run]:
    """A cell, and the same with one thing changed that could be what limits it."""
    base = cell(row, epsilon=epsilon, learned=learned, rate=rate)
    changed = {
        "as in the table": base,
        "half the noise (an oracle, not private)": replace(base, noise_share=0.5),
        "a third of the noise (an oracle, not private)": replace(base, noise_share=1 / 3),
    }
    for norm in (0.3, 3.0, 10.0):
        changed[f"C = {norm:g}"] = replace(base, max_grad_norm=norm)
    for batch in (32, 512):
        steps = EPOCHS * learned // batch
        changed[f"batches of {batch}"] = replace(base, batch=batch, steps=steps)
    return changed
