"""What a run makes of its steps' sums: parameters, which add them up, and the mean of the last.

Noise w_t in the sum of step t reaches the parameters through momentum and learning rate:

    x_s = Σ_{t <= s} η_t·m_t,  m_t = β·m_{t−1} + w_t

up to constants. With w = C⁻¹z for independent z and a Toeplitz C, the coefficients of C⁻¹ fold with
the momentum's into one series e, and x_s = Σ_u z_u·Σ_{u <= t <= s} η_t·e_{t−u}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

# Numbers in the table of what each z_u does to each x_s; beyond, some u stand for their neighbours.
_LARGEST_TABLE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A run's course of learning rates, its momentum, and the share of iterates it averages.

    Args:
        learning_rates: η_t of each step, >= 0, not all 0; their scale does not matter.
        momentum: β in [0, 1), of SGD or the first moment of Adam.
        averaged: the share of the last iterates whose mean is the result; 0 for the last alone.

    Raises:
        ValueError: a number is out of range.

    Source: Denisov et al. 2022 (arXiv 2202.08312) and Choquette-Choo et al. 2023
    (arXiv 2211.06530), who factorise momentum and learning rates the same way.

    >>> Workload.constant(steps=3, momentum=0.5).learning_rates
    (1.0, 1.0, 1.0)
    """

    learning_rates: tuple[float, ...]
    momentum: float = 0.0
    averaged: float = 0.0

    def __post_init__(self) -> None:
        rates = self.learning_rates
        if not (rates and all(0 <= rate < math.inf for rate in rates) and max(rates) > 0):
            raise ValueError("learning_rates are no finite numbers >= 0 of which one is above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} is not in [0, 1)")
        if not 0 <= self.averaged <= 1:
            raise ValueError(f"averaged={self.averaged} is not a share of the steps, in [0, 1]")

    @classmethod
    def constant(cls, *, steps: int, momentum: float = 0.0, averaged: float = 0.0) -> Workload:
        """A learning rate that stays as it is."""
        return cls(learning_rates=(1.0,) * steps, momentum=momentum, averaged=averaged)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.learning_rates)


class NoiseTable:
    """The mean square of the noise in a workload's parameters, for any Toeplitz C.

    It is the mean over all iterates, at which gradients are taken; where a mean of iterates is the
    result, half of it is that mean's. Each is divided by what independent noise would leave.

    Args:
        workload: what is made of the noise.
    """

    def __init__(self, workload: Workload) -> None:
        steps = workload.steps
        stride = max(1, math.ceil(steps * steps / _LARGEST_TABLE))
        starts = np.arange(0, steps, stride)
        lags = np.arange(steps)
        places = starts[:, None] + lags
        within = places < steps
        rates = np.asarray(workload.learning_rates)
        self._rates = np.where(within, rates[np.minimum(places, steps - 1)], 0.0)
        self._within = within
        # Rounded first, as the iterates' own mean is.
        tail = math.ceil(round(workload.averaged * steps, 9))
        self._tail = (within & (places >= steps - tail)) / tail if tail else None
        self._momentum = workload.momentum ** lags.astype(float)
        unit = np.zeros(steps)
        unit[0] = 1.0
        self._usual = [1.0] * (1 if self._tail is None else 2)
        self._usual = self._squares(self._reach(fold(unit, self._momentum)))

    @property
    def steps(self) -> int:
        """T."""
        return len(self._momentum)

    def mean_square(self, inverse: Series) -> float:
        """Of noise w = C⁻¹z, relative to w = z.

        Args:
            inverse: C⁻¹'s first column, [T].
        """
        return float(np.mean(self._squares(self._reach(fold(inverse, self._momentum)))))

    def gradient(self, inverse: Series) -> tuple[float, Series]:
        """The mean square, and its gradient in C⁻¹'s first column, [T]."""
        reach = self._reach(fold(inverse, self._momentum))
        squares = self._squares(reach)
        count = len(squares)
        by_reach = 2 * reach * self._within / (self._usual[0] * count)
        if self._tail is not None:
            mean = (reach * self._tail).sum(axis=1, keepdims=True)
            by_reach += 2 * mean * self._tail / (self._usual[1] * count)
        later = by_reach[:, ::-1].cumsum(axis=1)[:, ::-1]
        by_series = (self._rates * later).sum(axis=0)
        return float(np.mean(squares)), correlate(by_series, self._momentum)

    def _reach(self, series: Series) -> Series:
        """[starts, lags]: what z_u does to x_{u + lag}."""
        return (self._rates * series).cumsum(axis=1)

    def _squares(self, reach: Series) -> list[float]:
        found = [float(np.square(reach * self._within).sum()) / self._usual[0]]
        if self._tail is not None:
            mean = (reach * self._tail).sum(axis=1)
            found.append(float(np.square(mean).sum()) / self._usual[1])
        return found


def fold(first: Series, second: Series) -> Series:
    """The product of two power series, cut at their length.

    >>> fold(np.array([1.0, 2.0]), np.array([1.0, 3.0])).tolist()
    [1.0, 5.0]
    """
    size = len(first)
    padded = 1 << (2 * size - 1).bit_length()
    both = np.fft.rfft(first, padded) * np.fft.rfft(second, padded)
    return np.fft.irfft(both, padded)[:size]


def correlate(outer: Series, kernel: Series) -> Series:
    """Σ_k outer_k·kernel_{k−j} for each j: the adjoint of folding with `kernel`.

    >>> correlate(np.array([1.0, 2.0]), np.array([1.0, 3.0])).tolist()
    [7.0, 2.0]
    """
    return fold(outer[::-1], kernel)[::-1]
