"""What one rank adds up over a logical step, micro-batch by micro-batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from dpacc.errors import PrivacyError
from dpacc.layers.gradient_buffer import Layout, ScaledSum, Slot
from dpacc.plan import PrivacyPlan
from dpacc.step.clipping import add_clipped, clipping_scales
from dpacc.step.integer_sum import COUNT_POINTS, SENSITIVITY, Grid, SumOnGrid

_ROUNDING = 1e-4


class ClippedSum:
    """Σ over units of their clipped gradients, and for adaptive clipping how many lay below C.

    Args:
        plan: how to clip.
        layout: the slots of the flat sum.
        max_grad_norm: C at this step; the plan's own unless it adapts.
        device: where the sum lives.

    """

    def __init__(
        self, *, plan: PrivacyPlan, layout: Layout, max_grad_norm: float, device: torch.device
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._bound = max_grad_norm
        self._counts = plan.clipping == "adaptive"
        discrete = plan.noise == "discrete_gaussian"
        self._grid = Grid(max_grad_norm=max_grad_norm) if discrete else None
        self._device = device

    @cached_property
    def total(self) -> Tensor:
        """[width] fp32, or [width + 1] with Σ(bᵢ − ½) last for adaptive clipping, where bᵢ says
        whether unit i's norm was at most C. For discrete noise int64, in grid points.

        It takes memory from its first use on: not yet while the probe holds gradients.
        """
        return torch.zeros(
            self._layout.width + self._counts,
            dtype=torch.float32 if self._grid is None else torch.int64,
            device=self._device,
        )

    def add_kept(self, blocks: Mapping[Slot, Tensor], squares: Tensor) -> None:
        """Clip and add whole gradients, which are used up.

        Args:
            blocks: the gradients, [units, slot size] fp32 of each slot.
            squares: [units, slots], their squared norms.
        """
        scales = self.scales(squares)
        if self._grid is not None:
            self._add_on_grid(blocks, scales)
            return
        add_clipped(total=self._gradients, blocks=blocks, scales=scales)

    def scales(self, squares: Tensor) -> Tensor:
        """The clipping factors, [units, slots]; the units are counted, so call it once for each."""
        if self._counts:
            below = squares.sum(dim=1).sqrt() <= self._bound
            count = (below.float() - 0.5).sum()
            self.total[-1] += count if self._grid is None else (count * COUNT_POINTS).long()
        return clipping_scales(
            squares=squares, max_grad_norm=self._bound, clipping=self._plan.clipping
        )

    def sink(self, scales: Tensor) -> ScaledSum | SumOnGrid:
        """A sink that adds gradients with the given factors as they come by."""
        if self._grid is not None:
            return SumOnGrid(self._gradients, scales=scales, grid=self._grid)
        return ScaledSum(self._gradients, scales=scales)

    def require_bounded(self, sink: ScaledSum | SumOnGrid) -> None:
        """Refuse a second pass whose gradients were not those that the first one measured."""
        largest = float(sink.squares.max().sqrt()) if len(sink.squares) else 0.0
        most = self._bound * (1 + _ROUNDING) if self._grid is None else SENSITIVITY
        if not largest <= most:
            raise PrivacyError(
                "the second backward gave other gradients than the first, so clipping does not "
                "bound them; choose per_example_gradients='materialize', or make the backward "
                "deterministic with torch.use_deterministic_algorithms(True)"
            )

    def _add_on_grid(self, blocks: Mapping[Slot, Tensor], scales: Tensor) -> None:
        sink = self.sink(scales)
        for slot, block in blocks.items():
            sink.take(slot, block)
        self.require_bounded(sink)

    @property
    def _gradients(self) -> Tensor:
        return self.total[: self._layout.width]


class AdaptiveBound:
    """The clipping norm C, following a quantile of the norms by noised counts alone.

    After each step, with b̃ the noised share of units below C: C ← C·exp(−η(b̃ − γ))
    (arXiv 1905.03871). It depends on released numbers only, so it is public.
    """

    def __init__(self, plan: PrivacyPlan) -> None:
        self._plan = plan
        self.value = plan.max_grad_norm

    def follow(self, noised_count: float, *, expected_batch_size: int) -> None:
        """Move C after a step of so many units whose noised Σ(bᵢ − ½) was `noised_count`."""
        plan = self._plan
        below = noised_count / expected_batch_size + 0.5
        self.value *= math.exp(-plan.quantile_learning_rate * (below - plan.target_quantile))
