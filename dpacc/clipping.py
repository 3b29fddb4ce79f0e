"""From per-example gradients to a sum in which no example weighs more than C."""

from __future__ import annotations

import torch
from torch import Tensor

from dpacc.plan import Clipping

AUTOMATIC_STABILITY = 0.01
"""γ in C/(norm + γ), as in arXiv 2206.07136."""


def clipping_scales(*, norms: Tensor, max_grad_norm: float, clipping: Clipping) -> Tensor:
    """The factor by which each example's gradient is scaled so that its norm is at most C.

    "flat": min(1, C/norm). "automatic": C/(norm + 0.01), which makes every example count
    alike. A non-finite norm gives 0.

    >>> clipping_scales(norms=torch.tensor([0.5, 4.0, float("nan")]), max_grad_norm=1.0,
    ...                 clipping="flat").tolist()
    [1.0, 0.25, 0.0]
    """
    if clipping == "automatic":
        scales = max_grad_norm / (norms + AUTOMATIC_STABILITY)
    else:
        scales = (max_grad_norm / norms).clamp(max=1.0)
    return torch.where(norms.isfinite(), scales, torch.zeros_like(scales))


def clipped_sum(*, gradients: Tensor, max_grad_norm: float, clipping: Clipping) -> Tensor:
    """Σᵢ scaleᵢ·gᵢ over the examples of one micro-batch.

    Norms are fp32, over all trainable parameters, of exactly what is summed. An example whose
    gradient is not finite contributes zero: 0·NaN would poison the sum, so its row is emptied.

    Args:
        gradients: [examples, width] fp32; scaled in place.
        max_grad_norm: C.
        clipping: the rule.

    Returns:
        [width] fp32, with norm of at most C per example.

    >>> clipped_sum(gradients=torch.tensor([[3.0, 4.0], [0.3, 0.4]]), max_grad_norm=1.0,
    ...             clipping="flat")
    tensor([0.9000, 1.2000])
    """
    norms = torch.linalg.vector_norm(gradients, dim=1)
    scales = clipping_scales(norms=norms, max_grad_norm=max_grad_norm, clipping=clipping)
    gradients.masked_fill_(~norms.isfinite().unsqueeze(1), 0.0)
    # Not `scales @ gradients`: a matrix product may be rounded to TF32 or bf16 by a global flag.
    return gradients.mul_(scales.unsqueeze(1)).sum(dim=0)
