"""From per-example gradients to a sum in which no privacy unit weighs more than C."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dpacc.layers.gradient_buffer import Slot
from dpacc.layers.kernels.choice import fused_on
from dpacc.plan import Clipping

AUTOMATIC_STABILITY = 0.01
"""γ in C/(norm + γ), as in arXiv 2206.07136."""


def clipping_scales(*, squares: Tensor, max_grad_norm: float, clipping: Clipping) -> Tensor:
    """The factors by which gradients are scaled so that every unit's norm is at most C.

    - "flat" and "adaptive": min(1, C/norm) over all slots together.
    - "automatic": C/(norm + 0.01), which makes every unit count alike (arXiv 2206.07136).
    - "per-layer": min(1, C/(√K·norm_k)) for each of K slots, so that all together stay within C
      (arXiv 2212.01539).

    A unit with any gradient that is not finite gets zeros.

    Args:
        squares: [units, slots] squared norms.
        max_grad_norm: C.
        clipping: the rule.

    Returns:
        [units, slots] fp32.

    >>> clipping_scales(squares=torch.tensor([[0.25], [16.0], [float("nan")]]), max_grad_norm=1.0,
    ...                 clipping="flat").flatten().tolist()
    [1.0, 0.25, 0.0]
    """
    norms = squares.sum(dim=1, keepdim=True).sqrt()
    finite = norms.isfinite()
    if clipping == "automatic":
        scales = max_grad_norm / (norms + AUTOMATIC_STABILITY)
    elif clipping == "per-layer":
        share = max_grad_norm / math.sqrt(squares.shape[1])
        scales = (share / squares.sqrt()).clamp(max=1.0)
    else:
        scales = (max_grad_norm / norms).clamp(max=1.0)
    return torch.where(finite, scales, 0.0).expand_as(squares)


def add_clipped(*, total: Tensor, blocks: Mapping[Slot, Tensor], scales: Tensor) -> None:
    """Add Σ scale·gradient over the units of one micro-batch to `total`, [width] fp32.

    A unit whose scale is zero is left out: its gradients are emptied, for 0·NaN is NaN.

    Args:
        total: [width] fp32, added to in place.
        blocks: [units, slot size] fp32 of each slot, scaled in place.
        scales: [units, slots].
    """
    if fused_on(total.device):
        from dpacc.layers.kernels.clipped_sums import add_scaled

        for slot, block in blocks.items():
            add_scaled(
                total=total[slot.offset : slot.end], block=block, scales=scales[:, slot.index]
            )
        return
    left_out = scales[:, :1] == 0
    some_left_out = bool(left_out.any())
    for slot, block in blocks.items():
        # Slot by slot, which stays in the cache; and not as a matrix product, which a global flag
        # may round to TF32 or bf16.
        if some_left_out:
            block.masked_fill_(left_out, 0.0)
        block.mul_(scales[:, slot.index : slot.index + 1])
        total[slot.offset : slot.end] += block.sum(dim=0)
