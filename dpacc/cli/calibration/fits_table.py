"""The tables of `dpacc plan --fits`: one a length; a row is a launch on a number of GPUs."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from dpacc.cli import options, terminal

if TYPE_CHECKING:
    from dpacc.planning.fitting import Fit
    from dpacc.recipe.config import TrainingConfig

_COLUMNS = {
    "base": ("base", "gathered"),
    "AdamW": ("adapters", "optimizer"),
    "clipping": (
        "probe",
        "clipped sum",
        "per-example gradients",
        "clipped sum, noise and update",
    ),
    "forward": ("activations", "logits and losses", "backward"),
}
"""Parts that are shown together; the rest is Python, CUDA and their libraries.

"clipping" is per-example gradients and their sums, "forward" what the backward needs and works in.
"""


def show_fits(*, fits: list[Fit], settings: TrainingConfig, memory: int) -> None:
    """Print them, and what was assumed."""
    for tokens, alike in groupby(fits, key=lambda each: each.tokens):
        terminal.show_table(
            title=f"GiB of each GPU at its worst, {tokens:,} tokens",
            columns=["GPUs", "launch", *_COLUMNS, "peak", "fits"],
            rows=[_row(each) for each in alike],
        )
    made = "made again" if settings.gradient_checkpointing else "kept"
    if settings.offload_activations:
        made += " from inputs that wait in the host's memory"
    terminal.show_facts(
        title="Assumed",
        facts=[
            ("model", f"{settings.model}, base stored as {settings.quantization}"),
            ("micro-batch", f"one example, per-example gradients by {fits[0].strategy}"),
            ("activations", f"{made} (gradient_checkpointing, offload_activations)"),
            ("each GPU", options.size(memory)),
        ],
    )


def _row(fit: Fit) -> list[str]:
    from dpacc.planning.memory import PLACEMENTS

    parts = [sum(fit.memory.parts.get(name, 0) for name in names) for names in _COLUMNS.values()]
    sizes = [f"{size / 2**30:.2f}" for size in (*parts, fit.memory.peak)]
    return [str(fit.gpus), PLACEMENTS[fit.placement], *sizes, "yes" if fit.fits else "no"]
