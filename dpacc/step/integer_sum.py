"""The grid of whole numbers on which clipped gradients are added exactly.

Each unit's clipped gradient is rounded to the grid before anything is added, so that sums are
exact in any order, over any number of ranks, and a unit's weight is known: it is measured on the
whole numbers themselves, after every rounding before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isqrt

import numpy as np
import torch
from torch import Tensor

from dpacc.layers.gradient_buffer import Slot
from dpacc.plan import PrivacyPlan
from dpacc.randomness.discrete_gaussian import Integers, discrete_gaussians
from dpacc.randomness.run_secret import RunSecret

POINTS = 1 << 26
"""Grid points in one clipping norm C."""

SENSITIVITY = POINTS + (POINTS >> 12)
"""The most a unit's vector of whole numbers may measure: C, and 1/4096 of it for rounding."""

COUNT_POINTS = 1 << 20
"""Grid points in one unit of a count."""

_SMOOTHING = 8


def whole_scale(*, multiplier: float, sensitivity: int) -> int:
    """The scale of discrete Gaussian noise that hides no less than Gaussian noise would.

    The least whole number s with s² ≥ (σ·Δ)² + 8. Discrete Gaussian noise of scale s on every
    coordinate of an integer vector is Gaussian noise of variance s² − 8, rounded at random to an
    integer z with chance ∝ e^(−(z − y)²/16): the two have the same law but for factors within
    1 ± 10⁻⁶⁷ a coordinate, for Σ_z e^(−(z − y)²/16) depends on y by no more (Poisson summation:
    2·e^(−16π²)). Rounding a released number reveals nothing. So what is released costs what the
    Gaussian mechanism of multiplier σ costs, under any sampling and composition, in any dimension.

    Args:
        multiplier: σ ≥ 0; without noise there is no scale either.
        sensitivity: Δ, in grid points.

    >>> whole_scale(multiplier=0.5, sensitivity=100), whole_scale(multiplier=0.0, sensitivity=100)
    (51, 0)
    """
    if multiplier == 0:
        return 0
    variance = ceil(Fraction(multiplier) ** 2 * sensitivity**2) + _SMOOTHING
    return isqrt(variance - 1) + 1


def grid_noise(
    *, plan: PrivacyPlan, secret: RunSecret, step: int, width: int, threads: int = 1
) -> Integers:
    """Discrete Gaussian noise for a sum of `width` columns, and for its count below C, if any.

    `threads` cores draw it, with no effect on the result.

    Returns:
        [width] or [width + 1], in grid points.
    """

    def drawn(purpose: str, multiplier: float, sensitivity: int, count: int) -> Integers:
        scale = whole_scale(multiplier=multiplier, sensitivity=sensitivity)
        if scale == 0:
            return np.zeros(count, dtype=np.int64)
        return discrete_gaussians(
            secret=secret, step=step, purpose=purpose, scale=scale, count=count, threads=threads
        )

    gradients = drawn("noise", plan.gradient_noise_multiplier, SENSITIVITY, width)
    if plan.clipping != "adaptive":
        return gradients
    return np.append(gradients, drawn("count noise", plan.count_noise, COUNT_POINTS, 1))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of one logical step.

    Args:
        max_grad_norm: C at this step.
    """

    max_grad_norm: float

    @property
    def spacing(self) -> float:
        """The distance of two neighbouring points."""
        return self.max_grad_norm / POINTS

    def rounded(self, gradients: Tensor) -> Tensor:
        """The nearest points' numbers, whole and in fp64, which holds them and their sums.

        >>> Grid(max_grad_norm=1.0).rounded(torch.tensor([1.0, 0.0])).tolist()
        [67108864.0, 0.0]
        """
        return torch.round(gradients.double() / self.spacing)


class SumOnGrid:
    """Adds Σ rounded(scale·gradient) to a flat sum of whole numbers, and keeps no gradient.

    Args:
        total: [width] int64, added to in place.
        scales: [units, slots] fp32; where it is zero the gradient is left out, even if NaN.
        grid: where the whole numbers lie.

    Attributes:
        squares: [units] fp64, ‖rounded(scale·gradient)‖² of what was really added.
    """

    def __init__(self, total: Tensor, *, scales: Tensor, grid: Grid) -> None:
        self._total = total
        self._scales = scales
        self._grid = grid
        self.squares = torch.zeros(len(scales), dtype=torch.float64, device=total.device)

    def take(self, slot: Slot, block: Tensor) -> None:
        """Scale, round and add the block."""
        scales = self._scales[:, slot.index : slot.index + 1]
        whole = self._grid.rounded(torch.where(scales > 0, block.float(), 0.0).mul_(scales))
        self.squares += whole.square().sum(dim=1)
        self._total[slot.offset : slot.end] += whole.sum(dim=0).long()
