"""Σ scale·gradient over the units of a micro-batch, reading every gradient once.

torch empties what is left out, scales in place and then sums: each a pass over all that is kept.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 1024


def add_scaled(*, total: Tensor, block: Tensor, scales: Tensor) -> None:
    """total += Σᵢ scaleᵢ·blockᵢ, unit after unit; where a scale is zero nothing is added, even NaN.

    Args:
        total: [width] fp32, added to in place.
        block: [units, width] fp32; not changed.
        scales: [units] fp32.
    """
    units, width = block.shape
    _add_scaled[(triton.cdiv(width, _COLUMNS),)](
        total, block.contiguous(), scales.contiguous(), units, width, COLUMNS=_COLUMNS
    )


@triton.jit
def _add_scaled(total, block, scales, units, width, COLUMNS: tl.constexpr):
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    row = block + columns
    added = tl.zeros((COLUMNS,), dtype=tl.float32)
    for unit in range(units):
        scale = tl.load(scales + unit)
        numbers = tl.load(row, mask=inside, other=0.0)
        # A choice and not a product: 0·NaN is NaN.
        added += tl.where(scale > 0, numbers, 0.0) * scale
        row += width
    before = tl.load(total + columns, mask=inside, other=0.0)
    tl.store(total + columns, before + added, mask=inside)
