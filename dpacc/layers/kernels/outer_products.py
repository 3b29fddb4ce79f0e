"""∂ℓᵢ/∂W = Σₜ gᵢₜxᵢₜᵀ of every example with its norm, written whole, only measured, or only added.

A tile of W is made in registers from an example's tokens, in fp32 and without TF32, and measured
there: two passes (ghost) never write an example's gradient to memory, and what the second adds is
made by the instructions that made what the first measured. Tiles follow from W's shape alone, and
their squares are added in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TOKENS = 32
_MOST = 64
_PARTS = 128


def products(gradients: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients [examples, out_features · in_features] fp32, and their squared norms [examples].

    Args:
        gradients: g, [examples, tokens, out_features].
        inputs: x, [examples, tokens, in_features], in g's precision.
    """
    width = gradients.shape[2] * inputs.shape[2]
    block = gradients.new_empty(len(gradients), width, dtype=torch.float32)
    return block, _measured(gradients, inputs, block)


def squared_norms(gradients: Tensor, inputs: Tensor) -> Tensor:
    """The squared norms alone, [examples] fp32; arguments are those of `products`."""
    return _measured(gradients, inputs, None)


def add_scaled_products(
    total: Tensor, gradients: Tensor, inputs: Tensor, *, scales: Tensor
) -> Tensor:
    """total += Σᵢ scaleᵢ·gᵢᵀxᵢ, example after example; a scale of zero leaves even NaN out.

    Args:
        total: [out_features · in_features] fp32, added to in place.
        gradients: as for `products`.
        inputs: likewise.
        scales: [examples] fp32.

    Returns:
        ‖scale·gradient‖² of what was added, [examples] fp32.
    """
    factors, shape, tiles, blocks = _tiling(gradients, inputs)
    parts = gradients.new_empty(len(gradients), tiles, dtype=torch.float32)
    _add_tiles[(tiles,)](
        *factors, total, scales.contiguous(), parts, len(gradients), *shape, tiles, **blocks
    )
    return _sums(parts)


def _measured(gradients: Tensor, inputs: Tensor, block: Tensor | None) -> Tensor:
    factors, shape, tiles, blocks = _tiling(gradients, inputs)
    parts = gradients.new_empty(len(gradients), tiles, dtype=torch.float32)
    if len(gradients):
        _measure_tiles[(tiles, len(gradients))](
            *factors, block, parts, *shape, tiles, WRITES=block is not None, **blocks
        )
    return _sums(parts)


def _tiling(
    gradients: Tensor, inputs: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[int, int, int], int, dict[str, Any]]:
    """Factors, [tokens, out_features, in_features], how many tiles there are, and their sizes."""
    (_, tokens, outs), ins = gradients.shape, inputs.shape[2]
    tall, wide = (min(_MOST, max(16, triton.next_power_of_2(each))) for each in (outs, ins))
    tiles = triton.cdiv(outs, tall) * triton.cdiv(ins, wide)
    # The interpreter cannot multiply bf16.
    sizes = {"OUTS": tall, "INS": wide, "TOKENS": _TOKENS, "WIDENS": triton.knobs.runtime.interpret}
    return (gradients.contiguous(), inputs.contiguous()), (tokens, outs, ins), tiles, sizes


def _sums(parts: Tensor) -> Tensor:
    """[examples], each its own parts in one order, whatever the number of examples."""
    sums = parts.new_empty(len(parts))
    if len(parts):
        _add_parts[(len(parts),)](parts, sums, parts.shape[1], PARTS=_PARTS)
    return sums


@triton.jit
def _measure_tiles(
    gradients,
    inputs,
    block,
    parts,
    tokens,
    outs,
    ins,
    tiles,
    WRITES: tl.constexpr,
    OUTS: tl.constexpr,
    INS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDENS: tl.constexpr,
):
    tile, example = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows, columns = _places(tile, ins, OUTS, INS)
    product = _product(
        gradients + example * tokens * outs,
        inputs + example * tokens * ins,
        rows,
        columns,
        tokens,
        outs,
        ins,
        OUTS,
        INS,
        TOKENS,
        WIDENS,
    )
    tl.store(parts + example * tiles + tile, tl.sum(tl.sum(product * product, axis=1), axis=0))
    if WRITES:
        place = block + example * outs * ins + rows[:, None] * ins + columns[None, :]
        tl.store(place, product, mask=(rows[:, None] < outs) & (columns[None, :] < ins))


@triton.jit
def _add_tiles(
    gradients,
    inputs,
    total,
    scales,
    parts,
    examples,
    tokens,
    outs,
    ins,
    tiles,
    OUTS: tl.constexpr,
    INS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDENS: tl.constexpr,
):
    tile = tl.program_id(0)
    rows, columns = _places(tile, ins, OUTS, INS)
    added = tl.zeros((OUTS, INS), dtype=tl.float32)
    for example in range(examples):
        product = _product(
            gradients, inputs, rows, columns, tokens, outs, ins, OUTS, INS, TOKENS, WIDENS
        )
        scale = tl.load(scales + example)
        # A choice and not a product: 0·NaN is NaN.
        product = tl.where(scale > 0, product, 0.0) * scale
        added += product
        tl.store(parts + tile, tl.sum(tl.sum(product * product, axis=1), axis=0))
        gradients += tokens * outs
        inputs += tokens * ins
        parts += tiles
    inside = (rows[:, None] < outs) & (columns[None, :] < ins)
    place = total + rows[:, None] * ins + columns[None, :]
    tl.store(place, tl.load(place, mask=inside, other=0.0) + added, mask=inside)


@triton.jit
def _places(tile, ins, OUTS: tl.constexpr, INS: tl.constexpr):
    """The rows and columns of W that are in a tile; some are beyond its edges."""
    across = (ins + INS - 1) // INS
    rows = (tile // across * OUTS).to(tl.int64) + tl.arange(0, OUTS)
    return rows, tile % across * INS + tl.arange(0, INS)


@triton.jit
def _product(
    gradients,
    inputs,
    rows,
    columns,
    tokens,
    outs,
    ins,
    OUTS: tl.constexpr,
    INS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDENS: tl.constexpr,
):
    """One example's tile; what is beyond the edges of W, or after the last token, is zero."""
    product = tl.zeros((OUTS, INS), dtype=tl.float32)
    for start in range(0, tokens, TOKENS):
        here = start + tl.arange(0, TOKENS)
        g = tl.load(
            gradients + here[None, :] * outs + rows[:, None],
            mask=(here[None, :] < tokens) & (rows[:, None] < outs),
            other=0.0,
        )
        x = tl.load(
            inputs + here[:, None] * ins + columns[None, :],
            mask=(here[:, None] < tokens) & (columns[None, :] < ins),
            other=0.0,
        )
        if WIDENS:
            g, x = g.to(tl.float32), x.to(tl.float32)
        product = tl.dot(g, x, product, input_precision="ieee")
    return product


@triton.jit
def _add_parts(parts, sums, tiles, PARTS: tl.constexpr):
    example = tl.program_id(0).to(tl.int64)
    added = tl.zeros((PARTS,), dtype=tl.float32)
    for start in range(0, tiles, PARTS):
        places = start + tl.arange(0, PARTS)
        added += tl.load(parts + example * tiles + places, mask=places < tiles, other=0.0)
    tl.store(sums + example, tl.sum(added, axis=0))
