"""Compose laws on a grid, with relative accuracy however small δ is.

A power of a Fourier transform carries an absolute error near 1e-16 times the number of releases,
which drowns a δ of 1e-12. So each law is first tilted by e^(λ·loss), with λ such that the composed
law is centred at the ε in question, then composed in a window of a few standard deviations, then
untilted: the error is now relative to the mass that matters. What the window leaves out is
bounded by Chernoff's inequality and added to δ (above) or taken off (below).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.dots import Dots
from dpacc_accounting.pairs import Array
from dpacc_accounting.saddlepoint import Window

_EPS = float(np.finfo(np.float64).eps)
# Relative rounding error of one release's total mass, far above what is observed.
_MASS_ERROR = 1e-14


@dataclass(frozen=True)
class Composition:
    """δ(ε) of a composed law, with bounds on what its computation left out.

    Args:
        step: distance of neighbouring losses.
        shift: loss of the grid point 0.
        first: grid index of `tilted[0]`.
        tilted: composed probabilities under the tilted law, inside the window.
        tilt: λ >= 0.
        log_moment: `ln E_P[e^(λ·loss)]` of the composed loss.
        noise: bound on the rounding error of each entry of `tilted`.
        wrapped: bound on the tilted probability outside the window.
        beyond: bound on the P mass above the window, infinite losses included.
    """

    step: float
    shift: float
    first: int
    tilted: Array
    tilt: float
    log_moment: float
    noise: float
    wrapped: float
    beyond: float

    def delta_above(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from above."""
        total = self._inside(epsilon) + self.noise * self._kernel_sum()
        return min(self._untilted(total, epsilon) + self.beyond, 1.0)

    def delta_below(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from below."""
        wrapped = self.wrapped * _kernel_peak(self.tilt)
        total = self._inside(epsilon) - self.noise * self._kernel_sum() - wrapped
        return self._untilted(max(total, 0.0), epsilon)

    def _inside(self, epsilon: float) -> float:
        epsilon -= self.shift
        start = max(math.floor(epsilon / self.step) + 1 - self.first, 0)
        grid = np.arange(self.first + start, self.first + len(self.tilted))
        excess = self.step * grid - epsilon
        kernel = np.exp(-self.tilt * excess) * np.expm1(-excess)
        return -float((self.tilted[start:] * kernel).sum())

    def _untilted(self, total: float, epsilon: float) -> float:
        if total <= 0:
            return 0.0
        return math.exp(min(self.log_moment - self.tilt * epsilon + math.log(total), 0.0))

    def _kernel_sum(self) -> float:
        """A bound on the sum over the grid of `e^(−λx)(1 − e^(−x))`, x > 0."""
        area = 1 / (self.step * self.tilt * (self.tilt + 1)) if self.tilt else math.inf
        return min(area + _kernel_peak(self.tilt), len(self.tilted))


def compose(*, laws: Sequence[Dots], times: Sequence[int], window: Window) -> Composition:
    """The law of the sum of `times[i]` independent losses of each `laws[i]`, all on one grid."""
    step = laws[0].step
    shift = math.fsum(n * law.shift for law, n in zip(laws, times, strict=True))
    # The grid blurs the sum by up to this standard deviation: no Chernoff bound may be sharper.
    blur = step * math.sqrt(sum(times)) / 2
    first = math.floor((window.low - shift - 6 * blur) / step)
    size = _fast_length(math.ceil((window.high - window.low + 12 * blur) / step) + 2)
    tilted, noise = _convolve(laws, times, window.tilt, first, size)

    def log_moment(tilt: float) -> float:
        return math.fsum(n * law.log_moment(tilt) for law, n in zip(laws, times, strict=True))

    moment = log_moment(window.tilt)
    low, high = shift + step * first, shift + step * (first + size)
    sharpest = 6 / blur
    high_tilt = min(window.high_tilt, window.tilt + sharpest)
    wrap_tilt = min(window.wrap_tilt, window.tilt + sharpest)
    low_tilt = max(window.low_tilt, window.tilt - sharpest)
    above = log_moment(high_tilt) - high_tilt * high
    # What lies above the window returns at its bottom, and does no harm before it reaches ε.
    harmful = high + window.epsilon - low
    around = log_moment(wrap_tilt) - (wrap_tilt - window.tilt) * harmful
    below = log_moment(low_tilt) - (low_tilt - window.tilt) * low
    escaped = -math.expm1(
        sum(n * math.log1p(-min(law.infinite, 0.5)) for law, n in zip(laws, times, strict=True))
    )
    return Composition(
        step=step,
        shift=shift,
        first=first,
        tilted=tilted,
        tilt=window.tilt,
        log_moment=moment + sum(times) * _MASS_ERROR,
        noise=noise,
        wrapped=_bounded_exp(around - moment) + _bounded_exp(below - moment),
        beyond=_bounded_exp(above) + escaped,
    )


def _convolve(
    laws: Sequence[Dots], times: Sequence[int], tilt: float, first: int, size: int
) -> tuple[Array, float]:
    """The composed tilted law on `size` points from `first`, and a bound on its rounding error."""
    offset = 0
    log_size = np.zeros(size // 2 + 1)
    angle = np.zeros(size // 2 + 1)
    for law, count in zip(laws, times, strict=True):
        folded, centre = _folded(law, tilt, size)
        spectrum = np.fft.rfft(folded)
        # Only a centred law keeps its phase small enough to be multiplied by the count.
        offset += count * centre
        with np.errstate(divide="ignore"):
            log_size += count * np.log(np.abs(spectrum))
        angle += count * np.angle(spectrum)
    alive = log_size > -700
    spectrum = np.zeros(size // 2 + 1, dtype=np.complex128)
    spectrum[alive] = np.exp(log_size[alive] + 1j * angle[alive])
    peak = 2 * float(np.abs(spectrum).sum()) / size
    noise = 4 * _EPS * (sum(times) + math.log2(size)) * peak
    composed = np.fft.irfft(spectrum, size)
    return np.roll(composed, (offset - first) % size), noise


def _folded(law: Dots, tilt: float, size: int) -> tuple[Array, int]:
    """The tilted law around its mean, wrapped onto a circle of `size`, and that mean's index."""
    exponents = tilt * law.losses() - law.log_moment(tilt)
    tilted = law.masses * np.exp(np.minimum(exponents, 690.0))
    mean = float((tilted * np.arange(len(tilted))).sum()) / float(tilted.sum())
    centre = law.first + round(mean)
    start = (law.first - centre) % size
    wrapped = np.zeros(-(-(start + len(tilted)) // size) * size)
    wrapped[start : start + len(tilted)] = tilted
    return wrapped.reshape(-1, size).sum(axis=0), centre


def _kernel_peak(tilt: float) -> float:
    """The largest value of `e^(−λx)(1 − e^(−x))` over x > 0."""
    return math.exp(tilt * math.log(tilt / (tilt + 1)) - math.log1p(tilt)) if tilt else 1.0


def _bounded_exp(exponent: float) -> float:
    return math.exp(min(exponent, 0.0))


def _fast_length(least: int) -> int:
    """The smallest 2^a·3^b·5^c, a > 0, that is at least `least`."""
    best = 1 << max(least - 1, 1).bit_length()
    for odd in (3, 5, 9, 15, 25, 27, 45, 75, 81, 125):
        best = min(best, odd << max(-(-least // odd) - 1, 1).bit_length())
    return best
