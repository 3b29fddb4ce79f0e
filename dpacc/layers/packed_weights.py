"""Products with frozen weights of four bits, of which a tile is unpacked at a time.

bitsandbytes unpacks a weight whole, 90 MB of a Llama-7B's, multiplies with it once, and lets it go.
On a processor a tile of it stays in the cache from the one to the other and takes 4 MB. Rows of a
weight make columns of the output, and its columns make those of the input's gradient, so that no
sum is cut.

A product is added to what the adapter gives, and keeps nothing for its backward. Where activations
are made again, a block ends with what its last adapter keeps: its last product is not made twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dpacc.ranks.collectives import is_undivided

TILE_BYTES = 15 << 18
"""Of an unpacked tile, at most, but for one that is a single block wide."""

EVEN = 64
"""Rows or columns of a tile are a multiple of it, as registers and cache lines are."""


@dataclass(frozen=True, kw_only=True)
class PackedWeight:
    """A frozen weight [rows, columns] of four bits, and the scale of each block of a row.

    Args:
        packed: [rows, columns / 2], two numbers a byte.
        state: bitsandbytes', which says how.
        dtype: of the products.
    """

    packed: Tensor
    state: Any
    dtype: torch.dtype

    @staticmethod
    def of(layer: Any, x: Tensor) -> PackedWeight | None:
        """That of bitsandbytes' `layer`; None if only the layer can tell what it makes of `x`.

        Args:
            layer: any.
            x: [examples, ..., in_features].
        """
        if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.numel():
            return None
        state = getattr(layer.weight, "quant_state", None) if _is_packed(layer) else None
        if state is None:
            return None
        _settle(layer, x)
        if not _is_plain(layer, state, x.dtype):
            return None
        packed = layer.weight.detach().view(layer.out_features, -1)
        return PackedWeight(packed=packed, state=state, dtype=x.dtype)

    def onto(self, total: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """total + xWᵀ + b, in the place of `total`, which is nobody else's.

        Args:
            total: [examples, ..., rows], contiguous, in the dtype of the products.
            x: [examples, ..., columns], in it, too.
            bias: [rows], frozen.
        """
        result: Tensor = _SumOfTiles.apply(total, x, self, bias)  # type: ignore[no-untyped-call]
        return result

    def by_rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and those rows unpacked."""
        scales, width = self._scales(), self.state.shape[1]
        for part in self._parts(len(self.packed), width):
            yield part, self._unpacked(self.packed[part], scales[part], width)

    def by_columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Which columns, and those columns unpacked."""
        scales, block = self._scales(), self.state.blocksize
        for part in self._parts(self.state.shape[1], len(self.packed)):
            halves = slice(part.start // 2, part.stop // 2)
            blocks = slice(part.start // block, part.stop // block)
            width = part.stop - part.start
            yield part, self._unpacked(self.packed[:, halves], scales[:, blocks], width)

    def _parts(self, length: int, others: int) -> Iterator[slice]:
        """Cuts of `length` into tiles about alike, of whole blocks, `others` numbers long."""
        multiple = max(EVEN, self.state.blocksize)
        most = max(multiple, TILE_BYTES // (others * self.dtype.itemsize) // multiple * multiple)
        alike = ceil(length / ceil(length / most))
        step = ceil(alike / multiple) * multiple
        for start in range(0, length, step):
            yield slice(start, min(start + step, length))

    def _scales(self) -> Tensor:
        from bitsandbytes.functional import dequantize_blockwise

        scales: Tensor = self.state.absmax
        if self.state.nested:
            scales = dequantize_blockwise(scales, self.state.state2).add_(self.state.offset)
        return scales.float().view(len(self.packed), -1)

    def _unpacked(self, packed: Tensor, scales: Tensor, width: int) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        state = QuantState(
            absmax=scales.reshape(-1).contiguous(),  # which a column may yet not be
            shape=torch.Size((len(packed), width)),
            blocksize=self.state.blocksize,
            quant_type=self.state.quant_type,
            dtype=self.dtype,
        )
        tile: Tensor = dequantize_4bit(packed.reshape(-1, 1).contiguous(), state)
        return tile


def _settle(layer: Any, x: Tensor) -> None:
    """Let the layer's first input decide in which dtype it computes, as its own forward does."""
    if not layer.compute_type_is_set:
        layer.set_compute_type(x)
        layer.compute_type_is_set = True


def _is_plain(layer: Any, state: Any, dtype: torch.dtype) -> bool:
    """Whether the product is of numbers of one dtype, and each row whole blocks."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    casts = layer.compute_dtype not in (None, dtype)
    shape = (layer.out_features, layer.in_features)
    repacked = getattr(state, "packing_format_for_cpu", False) or tuple(state.shape) != shape
    odd = layer.in_features % state.blocksize or layer.weight.dtype is not torch.uint8
    bias = layer.bias
    learns = bias is not None and (bias.requires_grad or bias.dtype is not dtype)
    return not (watched or casts or repacked or odd or learns) and is_undivided(layer.weight)


def unpack_by_tiles(model: nn.Module) -> int:
    """Let the four-bit layers of `model` unpack tiles on a processor; how many do.

    >>> unpack_by_tiles(nn.Sequential(nn.Linear(2, 2)))
    0
    """

    def by_tiles(self: Any, x: Tensor) -> Any:
        weight = PackedWeight.of(self, x)
        if weight is None:
            return type(self).forward(self, x)
        return weight.onto(x.new_zeros(*x.shape[:-1], self.out_features), x, self.bias)

    changed = 0
    for module in model.modules():
        if _is_packed(module):
            module.forward = MethodType(by_tiles, module)
            changed += 1
    return changed


def _is_packed(layer: Any) -> bool:
    kind = type(layer)
    return (kind.__module__, kind.__name__) == ("bitsandbytes.nn.modules", "Linear4bit")


class _SumOfTiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, total: Tensor, x: Tensor, weight: PackedWeight, bias: Tensor | None
    ) -> Tensor:
        ctx.mark_dirty(total)
        ctx.weight = weight
        flat, inputs = total.view(-1, total.shape[-1]), x.reshape(-1, x.shape[-1])
        for part, tile in weight.by_rows():
            flat[:, part].addmm_(inputs, tile.t())
        return total if bias is None else total.add_(bias)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = output_gradients
        if not ctx.needs_input_grad[1]:
            return gradient, None, None, None
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_x = flat.new_empty(len(flat), ctx.weight.state.shape[1])
        for part, tile in ctx.weight.by_columns():
            torch.mm(flat, tile, out=of_x[:, part])
        return gradient, of_x.view(*gradient.shape[:-1], -1), None, None
