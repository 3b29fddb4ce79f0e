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
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpacc_accounting.pld.connect_the_dots import DiscretizedLoss
from dpacc_accounting.pld.dominating_pairs import Array
from dpacc_accounting.pld.saddlepoint import Window, log_kernel_peak

_EPS = float(np.finfo(np.float64).eps)
# Relative rounding error of one release's total mass, far above what is observed.
_MASS_ERROR = 1e-14
_LARGEST_EXPONENT = 690.0
# A window of fewer points leaves no room for a Chernoff bound above it.
_LEAST_POINTS = 256
# A loss that moves more often than this in all needs care against cancellation in its moves, but
# for the farthest, which happen no more than this often.
_OFTEN, _RARE = 1e4, 1e2


@dataclass(frozen=True)
class Composition:
    """δ(ε) of a composed law, with bounds on what its computation left out.

    Args:
        losses: the grid, ascending.
        step: distance of neighbouring losses.
        weights: composed probabilities under the tilted law, times e^(−λ·(loss − anchor)).
        tilt: λ >= 0.
        anchor: loss at which `weights` are probabilities.
        log_moment: `ln E_P[e^(λ·loss)]` of the composed loss.
        noise: bound on what rounding adds to or takes from the kernel's sum at `anchor`.
        wrapped: bound on what mass outside the window adds to it.
        clean_from: the least ε for which `wrapped` holds.
        beyond: bound on the P mass above the window, infinite losses included.
        doubt: bound on the relative error that the roundings of each release's masses add up to.
    """

    losses: Array
    step: float
    weights: Array
    tilt: float
    anchor: float
    log_moment: float
    noise: float
    wrapped: float
    clean_from: float
    beyond: float
    doubt: float

    def delta_above(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from above."""
        if not self._resolves(epsilon):
            return 1.0
        blur = self.noise * math.exp(self.tilt * (self.anchor - epsilon))
        inside = self._untilted(self._inside(epsilon)[0] + blur)
        return min(inside * math.exp(self.doubt) + self.beyond, 1.0)

    def delta_below(self, epsilon: float) -> float:
        """A bound on δ(epsilon) from below."""
        if epsilon < self.clean_from or not self._resolves(epsilon):
            return 0.0
        blur = (self.noise + self.wrapped) * math.exp(self.tilt * (self.anchor - epsilon))
        inside = self._untilted(max(self._inside(epsilon)[0] - blur, 0.0))
        return inside * math.exp(-self.doubt)

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
        near = 4 * self.step
        low, high = np.searchsorted(self.losses, [epsilon - near, epsilon + near])
        _, slope = self._inside(epsilon)
        density = float(self.weights[low:high].mean()) / self.step if high > low else 0.0
        return density / slope if slope > 0 else 0.0

    def relative_fall(self, epsilon: float) -> float:
        """`−d ln δ / dε`; 0 where it is not resolved."""
        total, slope = self._inside(epsilon) if self._resolves(epsilon) else (0.0, 0.0)
        return slope / total if total > 0 else 0.0

    def _inside(self, epsilon: float) -> tuple[float, float]:
        """`Σ weights·(1 − e^(ε − loss))_+` and minus its derivative.

        With a from ε to the next point and b from there on, `1 − e^(−a−b)` is
        `(1 − e^(−a)) + e^(−a)·(1 − e^(−b))`: no terms that cancel, and b is the same at every ε.
        """
        start = int(np.searchsorted(self.losses, epsilon, side="right"))
        weights = self.weights[start:]
        if not len(weights):
            return 0.0, 0.0
        whole = float(weights.sum())
        beyond = float((weights * self._kernel[: len(weights)]).sum())
        first = epsilon - float(self.losses[start])
        total = math.exp(first) * beyond - math.expm1(first) * whole
        return total, whole - total

    @cached_property
    def _kernel(self) -> Array:
        """`1 − e^(−b)` at b = 0, 1, 2, ... steps."""
        return -np.expm1(-self.step * np.arange(float(len(self.losses))))

    def _resolves(self, epsilon: float) -> bool:
        """Whether the weights above `epsilon` are within a double's range."""
        return self.tilt * (self.anchor - epsilon) < _LARGEST_EXPONENT

    def _log_unit(self) -> float:
        return self.log_moment - self.tilt * self.anchor

    def _untilted(self, total: float) -> float:
        return math.exp(min(self._log_unit() + math.log(total), 0.0)) if total > 0 else 0.0


def compose(
    *, laws: Sequence[DiscretizedLoss], times: Sequence[int], window: Window
) -> Composition:
    """The law of the sum of `times[i]` independent losses of each `laws[i]`, all on one grid."""
    step = laws[0].step
    shift = math.fsum(n * law.shift for law, n in zip(laws, times, strict=True))
    # The grid blurs the sum by up to this standard deviation: no Chernoff bound may be sharper.
    blur = step * math.sqrt(sum(times)) / 2
    first = math.floor((window.low - shift - 6 * blur) / step)
    points = math.ceil((window.high - window.low + 12 * blur) / step) + 2
    size = _fast_length(max(points, _LEAST_POINTS))
    tilted, blurs = _convolve(laws, times, window.tilt, first, size)

    def log_moment(tilt: float) -> float:
        return math.fsum(n * law.log_moment(tilt) for law, n in zip(laws, times, strict=True))

    moment = log_moment(window.tilt)
    low, high = shift + step * first, shift + step * (first + size)
    sharpest = 6 / blur
    high_tilt = min(window.high_tilt, window.tilt + sharpest)
    wrap_tilt = min(window.wrap_tilt, window.tilt + sharpest)
    low_tilt = max(window.low_tilt, window.tilt - sharpest)
    above = log_moment(high_tilt) - high_tilt * high
    # What lies above the window returns at its bottom, and does no harm below `clean_from`.
    harmful = high + window.clean_from - low
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
        step=step,
        weights=tilted * np.exp(untilt),
        tilt=window.tilt,
        anchor=window.epsilon,
        log_moment=moment,
        noise=_blurred_sum(blurs, window.tilt, step, size),
        wrapped=outside * math.exp(log_kernel_peak(window.tilt)),
        clean_from=window.clean_from,
        beyond=_bounded_exp(above) + escaped,
        doubt=sum(times) * _MASS_ERROR,
    )


def _convolve(
    laws: Sequence[DiscretizedLoss], times: Sequence[int], tilt: float, first: int, size: int
) -> tuple[Array, tuple[float, float]]:
    """The composed tilted law on `size` points from `first`, and bounds on its rounding error.

    The first bound is that of any point, the second is Euclidean (Higham 2002, theorem 24.2).
    """
    offset = 0
    uncertain = np.full(size // 2 + 1, math.log2(size))
    log_size = np.zeros(size // 2 + 1)
    losses = []
    for law, count in zip(laws, times, strict=True):
        loss, error, centre = _spectral_loss(law, count, tilt, size)
        # Only a centred law keeps its phase small enough to be multiplied by the count.
        offset += count * centre
        uncertain += count * error
        log_size += count * _log_abs_one_less(loss)
        losses.append(loss)
    alive = np.flatnonzero(log_size > -_LARGEST_EXPONENT)
    angle = np.zeros(len(alive))
    for loss, count in zip(losses, times, strict=True):
        angle += count * np.angle(1 - loss[alive])
    power = np.zeros(size // 2 + 1, dtype=np.complex128)
    power[alive] = np.exp(log_size[alive] + 1j * angle)
    errors = 4 * _EPS * uncertain[alive] * np.abs(power[alive])
    largest = 2 * float(errors.sum()) / size
    euclidean = math.sqrt(2 * float(errors @ errors) / size)
    composed = np.fft.irfft(power, size)
    return np.roll(composed, (offset - first) % size), (largest, euclidean)


def _spectral_loss(
    law: DiscretizedLoss, count: int, tilt: float, size: int
) -> tuple[NDArray[np.complex128], Array, int]:
    """1 − spectrum of the tilted law around its heaviest point; its error in ulps; that point.

    Most releases change nothing and weigh one point: 1 − spectrum is then small, and keeps the
    digits that the spectrum itself, near 1, would lose. What moves the loss often and not far is
    summed by parts.
    """
    exponents = tilt * law.losses() - law.log_moment(tilt)
    tilted = law.masses * np.exp(np.minimum(exponents, _LARGEST_EXPONENT))
    centre = int(np.argmax(tilted))
    above, below = tilted[centre + 1 :], tilted[:centre][::-1]
    often = count * float(above.sum() + below.sum()) > _OFTEN
    near = max(_reach(side, _RARE / count) for side in (above, below)) if often else 0
    far = tilted.copy()
    far[max(centre - near, 0) : centre + near + 1] = 0.0
    spread = float(far.sum())
    loss = spread - np.fft.rfft(_wrapped(far, -centre, size))
    error = np.full(len(loss), spread)
    if near:
        moved, uncertain = _often_moved(above[:near], below[:near], size)
        loss += moved
        error += uncertain
    return loss, error, law.first + centre


def _reach(side: Array, rare: float) -> int:
    """How many points of `side` to take until what lies beyond weighs no more than `rare`."""
    return int(np.count_nonzero(np.cumsum(side[::-1]) > rare))


def _often_moved(above: Array, below: Array, size: int) -> tuple[NDArray[np.complex128], Array]:
    """`Σ p_k (1 − e^(−ikω))` over k = ±1, ±2, ..., and its error in ulps: small where ω is.

    A large power leaves low frequencies alone, at which these terms cancel. Summed by parts twice,
    with z = e^(−iω), the upper side is `(1 − z)·Σ k·p_k − (1 − z)²·Σ_j c_j z^j`, where
    `c_j = Σ_k (k − j − 1)_+·p_k`, and the lower one the same in 1/z.
    """
    tails = [np.cumsum(side[::-1])[::-1] for side in (above, below)]
    moves = [float(side @ np.arange(1.0, len(side) + 1)) for side in (above, below)]
    upper, lower = (np.cumsum(tail[:0:-1])[::-1] for tail in tails)
    # (1 − 1/z)² = (1 − z)²/z²: the lower side begins two points below the upper one.
    curve = np.concatenate([lower[::-1], np.zeros(1), upper])
    bend = np.fft.rfft(_wrapped(curve, -len(lower) - 1, size))
    half = np.pi * np.arange(len(bend)) / size
    drop, turn = 2 * np.sin(half) ** 2, np.sin(2 * half)
    moved = sum(moves) * drop + 1j * (moves[0] - moves[1]) * turn - (drop + 1j * turn) ** 2 * bend
    # Cumulative sums gather the roundings of all their terms.
    bent = 2 * drop * float(curve.sum()) * math.sqrt(len(curve))
    return moved, sum(moves) * (drop + np.abs(turn)) + bent


def _wrapped(values: Array, first: int, size: int) -> Array:
    """`values`, of which the first belongs to point `first`, added up around a circle."""
    start = first % size
    padded = np.zeros(-(-(start + len(values)) // size) * size)
    padded[start : start + len(values)] = values
    return np.asarray(padded.reshape(-1, size).sum(axis=0))


def _log_abs_one_less(loss: NDArray[np.complex128]) -> Array:
    """`ln|1 − loss|`, exact both where the loss is small and where it is near 1."""
    excess = loss.real**2 + loss.imag**2 - 2 * loss.real
    near = excess > -0.75
    logarithm = np.empty(len(loss))
    logarithm[near] = 0.5 * np.log1p(excess[near])
    with np.errstate(divide="ignore"):
        logarithm[~near] = np.log(np.abs(1 - loss[~near]))
    return logarithm


def _blurred_sum(blurs: tuple[float, float], tilt: float, step: float, size: int) -> float:
    """A bound on what rounding moves the sum against the kernel `e^(−λx)(1 − e^(−x))`, x > 0."""
    peak = math.exp(log_kernel_peak(tilt))
    area = 1 / (step * tilt * (tilt + 1)) if tilt else math.inf
    whole = min(area + peak, size * peak)
    largest, euclidean = blurs
    return min(largest * whole, euclidean * math.sqrt(peak * whole))


def _bounded_exp(exponent: float) -> float:
    return math.exp(min(exponent, 0.0))


def _fast_length(least: int) -> int:
    """The smallest 2^a·3^b·5^c, a > 0, that is at least `least`."""
    best = 1 << max(least - 1, 1).bit_length()
    for odd in (3, 5, 9, 15, 25, 27, 45, 75, 81, 125):
        best = min(best, odd << max(-(-least // odd) - 1, 1).bit_length())
    return best
