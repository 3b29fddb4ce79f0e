"""A frozen linear layer and its LoRA in one pass: y = xWᵀ + b + s·(xAᵀ)Bᵀ.

Every program reads its rows of x once for both products and writes y once, where torch reads x
twice and y once more. xAᵀ is made again for every tile of y, at rank/128 of the frozen product's
cost, and kept for the backward by the first of them. A row's numbers depend on no other row.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_ROWS, _OUTS, _INS = 64, 128, 32


def lora_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, lower: Tensor, upper: Tensor, *, scale: float
) -> tuple[Tensor, Tensor]:
    """y [..., out_features] and xAᵀ [..., rank], in x's precision.

    Args:
        x: [..., in_features].
        weight: W, [out_features, in_features], frozen, in x's precision.
        bias: b, [out_features], or none.
        lower: A, [rank, in_features], in any precision.
        upper: B, [out_features, rank], likewise.
        scale: s.
    """
    (outs, ins), rank = weight.shape, len(lower)
    total, low = (x.new_empty(*x.shape[:-1], width) for width in (outs, rank))
    rows = x.numel() // ins
    if rows:
        _forward[(triton.cdiv(rows, _ROWS), triton.cdiv(outs, _OUTS))](
            *(x.contiguous(), weight.contiguous(), bias, lower.contiguous(), upper.contiguous()),
            *(total, low, rows, outs, ins, rank, scale),
            HAS_BIAS=bias is not None,
            ROWS=_ROWS,
            OUTS=_OUTS,
            INS=_INS,
            RANK=max(16, triton.next_power_of_2(rank)),
            WIDENS=triton.knobs.runtime.interpret,
        )
    return total, low


@triton.jit
def _forward(
    x,
    weight,
    bias,
    lower,
    upper,
    total,
    low,
    rows,
    outs,
    ins,
    rank,
    scale,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTS: tl.constexpr,
    INS: tl.constexpr,
    RANK: tl.constexpr,
    WIDENS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    out = tl.program_id(1).to(tl.int64) * OUTS + tl.arange(0, OUTS)
    direction = tl.arange(0, RANK)
    kind: tl.constexpr = tl.float32 if WIDENS else x.dtype.element_ty
    y = tl.zeros((ROWS, OUTS), dtype=tl.float32)
    narrow = tl.zeros((ROWS, RANK), dtype=tl.float32)
    for start in range(0, ins, INS):
        here = start + tl.arange(0, INS)
        of_x = tl.load(
            x + row[:, None] * ins + here[None, :],
            mask=(row[:, None] < rows) & (here[None, :] < ins),
            other=0.0,
        ).to(kind)
        of_weight = tl.load(
            weight + out[None, :] * ins + here[:, None],
            mask=(out[None, :] < outs) & (here[:, None] < ins),
            other=0.0,
        ).to(kind)
        of_lower = tl.load(
            lower + direction[None, :] * ins + here[:, None],
            mask=(direction[None, :] < rank) & (here[:, None] < ins),
            other=0.0,
        ).to(x.dtype.element_ty)
        y = tl.dot(of_x, of_weight, y, input_precision="ieee")
        narrow = tl.dot(of_x, of_lower.to(kind), narrow, input_precision="ieee")
    rounded = narrow.to(x.dtype.element_ty)
    if tl.program_id(1) == 0:
        tl.store(
            low + row[:, None] * rank + direction[None, :],
            rounded,
            mask=(row[:, None] < rows) & (direction[None, :] < rank),
        )
    of_upper = tl.load(
        upper + out[None, :] * rank + direction[:, None],
        mask=(out[None, :] < outs) & (direction[:, None] < rank),
        other=0.0,
    ).to(x.dtype.element_ty)
    y += scale * tl.dot(rounded.to(kind), of_upper.to(kind), input_precision="ieee")
    if HAS_BIAS:
        y += tl.load(bias + out, mask=out < outs, other=0.0).to(tl.float32)[None, :]
    tl.store(
        total + row[:, None] * outs + out[None, :],
        y.to(x.dtype.element_ty),
        mask=(row[:, None] < rows) & (out[None, :] < outs),
    )
