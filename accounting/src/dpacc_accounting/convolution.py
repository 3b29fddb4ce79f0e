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
from numpy.typing import NDArray

from dpacc_accounting.dots import Dots
from dpacc_accounting.pairs import Array
from dpacc_accounting.saddlepoint import Window

_EPS = float(np.finfo(np.float64).eps)
# Relative rounding error of one release's total mass, far above what is observed.
_MASS_ERROR = 1e-14
_LARGEST_EXPONENT = 690.0


@dataclass(frozen=True)
class Composition:
    """δ(ε) of a composed law, with bounds on what its computation left out.

    Args:
        losses: the grid, ascending.
        weights: composed probabilities under the tilted law, times e^(−λ·(loss − anchor)).
        tilt: λ >= 0.
        anchor: loss at which `weights` are probabilities.
        log_moment: `ln E_P[e^(λ·loss)]` of the composed loss.
        noise: bound on what rounding adds to or takes from the kernel's sum at `anchor`.
        wrapped: bound on what mass outside the window adds to it.
        beyond: bound on the P mass above the window, infinite losses included.
    """

    losses: Array
    weights: Array
    tilt: float
    anchor: float
    log_moment: float
    noise: float
    wrapped: float
    beyond: float

    def delta_above(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from above."""
        if not self._resolves(epsilon):
            return 1.0
        blur = self.noise * math.exp(self.tilt * (self.anchor - epsilon))
        return min(self._untilted(self._inside(epsilon)[0] + blur) + self.beyond, 1.0)

    def delta_below(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from below."""
        if not self._resolves(epsilon):
            return 0.0
        blur = (self.noise + self.wrapped) * math.exp(self.tilt * (self.anchor - epsilon))
        return self._untilted(max(self._inside(epsilon)[0] - blur, 0.0))

    def epsilon_near(self, *, delta: float, start: float) -> float:
        """Newton's estimate, in ln δ, of where δ(ε) = `delta`; not a bound."""
        epsilon = start
        for _ in range(8):
            total, slope = self._inside(epsilon) if self._resolves(epsilon) else (0.0, 0.0)
            if total <= 0 or slope <= 0:
                return start
            step = (math.log(total / delta) + self._log_unit()) * total / slope
            epsilon = max(epsilon + step, 0.0)
            if abs(step) <= 1e-9 * epsilon:
                break
        return epsilon

    def steepness(self, epsilon: float) -> float:
        """`−d ln|δ′(ε)| / dε`: how fast the tail of the loss thins out, smoothed over the grid."""
        step = float(self.losses[1] - self.losses[0])
        low, high = np.searchsorted(self.losses, [epsilon - 4 * step, epsilon + 4 * step])
        _, slope = self._inside(epsilon)
        density = float(self.weights[low:high].mean()) / step if high > low else 0.0
        return density / slope if slope > 0 else 0.0

    def _inside(self, epsilon: float) -> tuple[float, float]:
        """`Σ weights·(1 − e^(ε − loss))_+` and minus its derivative."""
        start = int(np.searchsorted(self.losses, epsilon, side="right"))
        weights = self.weights[start:]
        kernel = np.expm1(epsilon - self.losses[start:])
        kernel *= weights
        total = -float(kernel.sum())
        return total, float(weights.sum()) - total

    def _resolves(self, epsilon: float) -> bool:
        """Whether the weights above `epsilon` are within a double's range."""
        return self.tilt * (self.anchor - epsilon) < _LARGEST_EXPONENT

    def _log_unit(self) -> float:
        return self.log_moment - self.tilt * self.anchor

    def _untilted(self, total: float) -> float:
        return math.exp(min(self._log_unit() + math.log(total), 0.0)) if total > 0 else 0.0


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
    outside = _bounded_exp(around - moment) + _bounded_exp(below - moment)
    escaped = -math.expm1(
        sum(n * math.log1p(-min(law.infinite, 0.5)) for law, n in zip(laws, times, strict=True))
    )
    losses = shift + step * (first + np.arange(float(size)))
    untilt = np.minimum(-window.tilt * (losses - window.epsilon), _LARGEST_EXPONENT)
    return Composition(
        losses=losses,
        weights=tilted * np.exp(untilt),
        tilt=window.tilt,
        anchor=window.epsilon,
        log_moment=moment + sum(times) * _MASS_ERROR,
        noise=noise * _kernel_sum(window.tilt, step, size),
        wrapped=outside * _kernel_peak(window.tilt),
        beyond=_bounded_exp(above) + escaped,
    )


def _convolve(
    laws: Sequence[Dots], times: Sequence[int], tilt: float, first: int, size: int
) -> tuple[Array, float]:
    """The composed tilted law on `size` points from `first`, and a bound on its rounding error."""
    offset, uncertain = 0, math.log2(size)
    log_size = np.zeros(size // 2 + 1)
    losses = []
    for law, count in zip(laws, times, strict=True):
        loss, spread, centre = _spectral_loss(law, tilt, size)
        # Only a centred law keeps its phase small enough to be multiplied by the count.
        offset += count * centre
        uncertain += count * spread
        log_size += count * _log_abs_one_less(loss)
        losses.append(loss)
    alive = np.flatnonzero(log_size > -_LARGEST_EXPONENT)
    angle = np.zeros(len(alive))
    for loss, count in zip(losses, times, strict=True):
        angle += count * np.angle(1 - loss[alive])
    power = np.zeros(size // 2 + 1, dtype=np.complex128)
    power[alive] = np.exp(log_size[alive] + 1j * angle)
    peak = 2 * float(np.abs(power[alive]).sum()) / size
    composed = np.fft.irfft(power, size)
    return np.roll(composed, (offset - first) % size), 4 * _EPS * uncertain * peak


def _spectral_loss(law: Dots, tilt: float, size: int) -> tuple[NDArray[np.complex128], float, int]:
    """1 − spectrum of the tilted law around its heaviest point; what is elsewhere; that point.

    Most releases change nothing and weigh one point: 1 − spectrum is then small, and keeps the
    digits that the spectrum itself, near 1, would lose.
    """
    exponents = tilt * law.losses() - law.log_moment(tilt)
    tilted = law.masses * np.exp(np.minimum(exponents, _LARGEST_EXPONENT))
    centre = int(np.argmax(tilted))
    start = -centre % size
    wrapped = np.zeros(-(-(start + len(tilted)) // size) * size)
    wrapped[start : start + len(tilted)] = tilted
    wrapped[start + centre] = 0.0
    elsewhere = wrapped.reshape(-1, size).sum(axis=0)
    spread = float(elsewhere.sum())
    return spread - np.fft.rfft(elsewhere), spread, law.first + centre


def _log_abs_one_less(loss: NDArray[np.complex128]) -> Array:
    """`ln|1 − loss|`, exact both where the loss is small and where it is near 1."""
    excess = loss.real**2 + loss.imag**2 - 2 * loss.real
    with np.errstate(divide="ignore"):
        far = np.log(np.abs(1 - loss))
    return np.where(excess > -0.75, 0.5 * np.log1p(np.maximum(excess, -0.75)), far)


def _kernel_sum(tilt: float, step: float, size: int) -> float:
    """A bound on the sum over the grid of `e^(−λx)(1 − e^(−x))`, x > 0."""
    area = 1 / (step * tilt * (tilt + 1)) if tilt else math.inf
    return min(area + _kernel_peak(tilt), size)


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
