"""Counts what a computation allocates and multiplies, without memory and without arithmetic.

On torch's meta device tensors have shapes and no contents. A step runs there as it would anywhere,
through the same code; every storage is counted from its birth to its death.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dpacc.losses import token_losses
from dpacc.planning.known_outcomes import KnownOutcomes

_PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.bmm}
_SUMS_OF_PRODUCTS = {torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.baddbmm}


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it lasts, counts bytes alive and the floating-point operations of matrix products.

    Attributes:
        peak: the most bytes alive at once, of those born while it lasted.
        at_peak: the same by the purpose they were born for.
        operations: 2·m·n·k of every product, and attention's.

    >>> with LiveMemory() as live:
    ...     a = torch.empty(4, 8, device="meta")
    ...     b = a @ torch.empty(8, 2, device="meta")
    >>> live.peak, live.operations
    (224, 128)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.at_peak: Counter[str] = Counter()
        self.operations = 0
        self._purpose = "other"
        self._times = 1
        self._outcomes = KnownOutcomes()
        self._alive: Counter[str] = Counter()
        self._total = 0
        self._born: dict[int, tuple[str, int]] = {}

    @contextmanager
    def purpose(self, name: str) -> Iterator[None]:
        """What is born meanwhile is born for this."""
        before, self._purpose = self._purpose, name
        try:
            yield
        finally:
            self._purpose = before

    @contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """What is multiplied meanwhile counts so many times."""
        before, self._times = self._times, self._times * times
        try:
            yield
        finally:
            self._times = before

    def multiply(self, operations: int) -> None:
        """Count floating-point operations."""
        self.operations += self._times * operations

    def rename(self, tensor: Tensor, name: str) -> None:
        """A tensor that is alive is from now on for this purpose."""
        key = tensor.untyped_storage()._cdata
        purpose, size = self._born[key]
        self._born[key] = (name, size)
        self._alive[purpose] -= size
        self._alive[name] += size

    def ignore(self, tensors: Iterator[Tensor]) -> None:
        """Do not count what is there already."""
        for tensor in tensors:
            self._born[tensor.untyped_storage()._cdata] = ("", 0)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        kind = function.overloadpacket
        if kind is torch.ops.aten._local_scalar_dense and arguments[0].is_meta:
            return torch.zeros((), dtype=arguments[0].dtype).item()  # nothing is NaN, or left out
        output = self._outcomes.of(function, arguments, named or {})
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        if kind in _PRODUCTS:
            self.multiply(2 * arguments[0].numel() * arguments[1].shape[-1])
        elif kind in _SUMS_OF_PRODUCTS:
            self.multiply(2 * arguments[1].numel() * arguments[2].shape[-1])
        return output

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._born:
            return
        size = storage.nbytes()
        self._born[key] = (self._purpose, size)
        weakref.finalize(storage, self._bury, key)
        self._alive[self._purpose] += size
        self._total += size
        if self._total > self.peak:
            self.peak, self.at_peak = self._total, self._alive.copy()

    def _bury(self, key: int) -> None:
        purpose, size = self._born.pop(key)
        self._alive[purpose] -= size
        self._total -= size


@contextmanager
def fused_attention(live: LiveMemory) -> Iterator[None]:
    """Let scaled dot-product attention keep what fused kernels keep: never [tokens, tokens].

    Outputs, one number a query, and the mask in the queries' dtype; torch would choose its
    unfused form on the meta device. Torch's own function is replaced while it lasts: a mode would
    not reach the forwards that activation checkpointing repeats.
    """
    torchs_own = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        mask = rest[0] if rest else named.get("attn_mask")
        output: Tensor = _Fused.apply(query, key, value, mask, live)  # type: ignore[no-untyped-call]
        return output

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = torchs_own


@contextmanager
def equal_runs_once(live: LiveMemory) -> Iterator[None]:
    """Let losses go through the first two of many equal runs of tokens or words, and the last.

    The second holds what the first left behind, as each later one does, and stands for all of them:
    what is alive is the same, and its operations count as often as there are such runs.
    """
    every_one = token_losses.runs

    def few(*, total: int, most: int) -> Iterator[slice]:
        whole = total // most
        for at in range(min(whole, 2)):
            with live.repeated(whole - 1 if at else 1):
                yield slice(at * most, (at + 1) * most)
        if total % most:
            yield slice(whole * most, total)

    token_losses.runs = few
    try:
        yield
    finally:
        token_losses.runs = every_one


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, live: LiveMemory
    ) -> Tensor:
        batch, heads, tokens, _ = query.shape
        output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        normalisers = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        bias = None if mask is None else torch.empty_like(mask, dtype=query.dtype)
        ctx.save_for_backward(query, key, value, output, normalisers, bias)
        # Two products of [tokens, tokens] with [tokens, features]; five in the backward.
        ctx.live, ctx.one = live, 2 * query.numel() * key.shape[-2]
        live.multiply(2 * ctx.one)
        return output

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, *_ = ctx.saved_tensors
        ctx.live.multiply(5 * ctx.one)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None
