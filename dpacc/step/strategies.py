"""Two exact ways from per-example losses to the clipped sum: keep gradients, or pass twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor

from dpacc.errors import PrivacyError
from dpacc.layers.gradient_buffer import FirstGradient, GradientBuffer, KeptGradients, SquaredNorms
from dpacc.layers.subspace import ProjectedGradients, Subspace
from dpacc.ranks import collectives
from dpacc.step.accumulation import ClippedSum

PerExampleGradients = Literal["auto", "materialize", "ghost"]

_SHARE_OF_FREE_MEMORY = 0.25
_FEWEST_ROWS = 8
_FP32_BYTES = 4

Backward = Callable[[Tensor, bool], None]
"""Runs the backward of a scalar; the flag keeps the graph for another."""


class Strategy(Protocol):
    """Adds the clipped gradients of one micro-batch to a logical step's sum."""

    def add(self, losses: Tensor, owners: Tensor | None, into: ClippedSum) -> None:
        """`losses` [examples]; `owners` [examples] says whose they are, if not each its own."""


class Materialize:
    """One backward that keeps every unit's gradient, then clips: as fast as not being private."""

    def __init__(
        self,
        buffer: GradientBuffer,
        backward: Backward,
        device: torch.device,
        keep: type[KeptGradients] = KeptGradients,
    ) -> None:
        self._buffer = buffer
        self._backward = backward
        self._device = device
        self._keep = keep

    def rows(self, losses: Tensor, owners: Tensor | None = None) -> Tensor:
        """Every unit's gradient, [units, width] fp32."""
        return self._kept(losses, owners).rows()

    def first(self, losses: Tensor) -> FirstGradient:
        """The first example's gradient, and the length of the others; none of those is kept."""
        first = FirstGradient(self._buffer.layout, device=self._device)
        with self._buffer.open(examples=len(losses), sink=first):
            self._backward(losses.sum(), False)
        return first

    def add(self, losses: Tensor, owners: Tensor | None, into: ClippedSum) -> None:
        """Keep, measure, scale and add."""
        kept = self._kept(losses, owners)
        into.add_kept(kept.blocks, kept.squares)

    def _kept(self, losses: Tensor, owners: Tensor | None) -> KeptGradients:
        kept = self._keep(self._buffer.layout, units=_units(losses, owners), device=self._device)
        with self._buffer.open(examples=len(losses), sink=kept, owners=owners):
            self._backward(losses.sum(), False)
        return kept


class Ghost:
    """Two backwards over one graph: the first measures, the second adds what it measured, scaled.

    No gradient is kept, so memory does not grow with the number of examples. Both passes see the
    same numbers in the same order: scales are applied to the layers' fp32 blocks, not to the
    losses, which would round differently in 16 bits. That they did is checked after the second.
    """

    def __init__(self, buffer: GradientBuffer, backward: Backward, device: torch.device) -> None:
        self._buffer = buffer
        self._backward = backward
        self._device = device
        if device.type == "cuda":
            # Its attention, which torch prefers on some GPUs, has no repeatable backward.
            torch.backends.cuda.enable_cudnn_sdp(False)
            # Without it torch refuses matrix products that are asked to be repeatable.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def add(self, losses: Tensor, owners: Tensor | None, into: ClippedSum) -> None:
        """Measure, then scale and add.

        Raises:
            PrivacyError: the second backward cannot be, or was not, what the first one was.
        """
        try:
            with repeatable(self._device):
                self._add(losses, owners, into)
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            raise PrivacyError(
                f"a second backward cannot repeat the first here ({error}); choose "
                "per_example_gradients='materialize'"
            ) from error

    def _add(self, losses: Tensor, owners: Tensor | None, into: ClippedSum) -> None:
        units, loss = _units(losses, owners), losses.sum()
        norms = SquaredNorms(self._buffer.layout, units=units, device=self._device)
        with self._buffer.open(examples=len(losses), sink=norms, owners=owners):
            self._backward(loss, True)
        sink = into.sink(into.scales(norms.squares))
        with self._buffer.open(examples=len(losses), sink=sink, owners=owners):
            self._backward(loss, False)
        into.require_bounded(sink)


class InSubspace:
    """Another strategy until a run goes on in a subspace; then one backward, keeping k numbers.

    Each unit's gradient is projected as it comes by, so that neither strategy's memory is needed,
    and what is clipped is the very projection that is added.
    """

    def __init__(
        self,
        before: Strategy,
        buffer: GradientBuffer,
        backward: Backward,
        subspace: Subspace,
    ) -> None:
        self._before = before
        self._buffer = buffer
        self._backward = backward
        self._subspace = subspace

    def add(self, losses: Tensor, owners: Tensor | None, into: ClippedSum) -> None:
        """Project, measure, scale and add."""
        if self._subspace.basis is None:
            self._before.add(losses, owners, into)
            return
        projected = ProjectedGradients(self._subspace.basis, units=_units(losses, owners))
        with self._buffer.open(examples=len(losses), sink=projected, owners=owners):
            self._backward(losses.sum(), False)
        squares = projected.rows.square().sum(dim=1, keepdim=True)
        (slot,) = self._subspace.layout.slots.values()
        into.add_kept({slot: projected.rows}, squares)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """While it lasts, a GPU's backward gives the same numbers each time; a processor's always does.

    Attention adds up its gradients in whatever order blocks finish. It obeys torch's strict mode
    alone, which raises RuntimeError for an operation that has no repeatable form.
    """
    if device.type == "cpu":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        settings.fill_uninitialized_memory = fills


def most_rows_that_fit(*, width: int, device: torch.device) -> int:
    """How many fp32 gradients of `width` elements fill a quarter of the device's free memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    return rows_within(free=free, width=width)


def rows_within(*, free: int, width: int) -> int:
    """How many of them fill a quarter of `free` bytes.

    >>> rows_within(free=64_000, width=1000)
    4
    """
    return int(free * _SHARE_OF_FREE_MEMORY) // (width * _FP32_BYTES)


def choose(asked: PerExampleGradients, *, rows_that_fit: int) -> Literal["materialize", "ghost"]:
    """What "auto" means here: keep gradients wherever a handful of them fit.

    >>> choose("auto", rows_that_fit=100), choose("auto", rows_that_fit=2)
    ('materialize', 'ghost')
    """
    if asked != "auto":
        return asked
    return "materialize" if rows_that_fit >= _FEWEST_ROWS else "ghost"


def strategy_for(
    asked: PerExampleGradients,
    buffer: GradientBuffer,
    backward: Backward,
    *,
    accelerator: Accelerator,
    subspace: Subspace | None = None,
) -> tuple[PerExampleGradients, int, Strategy]:
    """Its name, how many units' gradients may be kept at once, and the strategy.

    Both are exact, so only speed and memory depend on it. With a `subspace` it is followed there.
    """
    device = accelerator.device
    rows_here = most_rows_that_fit(width=buffer.layout.width, device=device)
    # The least on any rank: ranks that cut a draw differently would lose examples.
    most_rows = min(collectives.tell_all(rows_here))
    name = choose(asked, rows_that_fit=most_rows)
    chosen = Ghost if name == "ghost" else Materialize
    strategy: Strategy = chosen(buffer, backward, device)
    if subspace is not None:
        strategy = InSubspace(strategy, buffer, backward, subspace)
    return name, most_rows, strategy


def _units(losses: Tensor, owners: Tensor | None) -> int:
    return len(losses) if owners is None else int(owners.max()) + 1
