"""Where the composed privacy loss lives: a fast estimate that plans the certified computation.

Nothing here is a bound. The cumulants of the composed loss give an estimate of ε (or δ), good to
a percent, and from it the exponential tilt, the window and the grid that the bound needs.

Source: Alghamdi et al. 2022, The Saddle-Point Accountant (arXiv 2208.09595).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.pld.dominating_pairs import Array, Pair
from dpacc_accounting.pld.privacy_losses import PrivacyLoss

# Mass that a window may leave out, as natural logarithms relative to δ and to the tilted law.
RIGHT_MARGIN = 16.0
LEFT_MARGIN = 18.0
# How far below its ε, relative to what the window holds there, a window is still clean.
_CLEAN = 0.15
# Smallest δ that is resolved; a smaller one is reported as a bound of about this size.
LOG_DELTA_FLOOR = math.log(1e-100)


@dataclass(frozen=True)
class Window:
    """Plan of one composition.

    Args:
        tilt: λ >= 0 of the tilted law `p(x)·e^(λx)`.
        epsilon: the ε of interest, where the tilted law is centred.
        low: left edge of the losses kept.
        high: right edge of the losses kept.
        clean_from: the least ε which losses above `high`, that return at `low`, do not reach.
        low_tilt: the λ < tilt whose Chernoff bound is tight at `low`.
        high_tilt: the λ > tilt whose Chernoff bound is tight where P leaves a sliver of δ.
        wrap_tilt: the λ > tilt whose Chernoff bound is tight where the tilted law has ended.
    """

    tilt: float
    epsilon: float
    low: float
    high: float
    clean_from: float
    low_tilt: float
    high_tilt: float
    wrap_tilt: float


class Cumulants:
    """`K(λ) = Σ times · ln E_P[e^(λ·loss)]` of a composition, by quadrature over the output.

    Args:
        pairs: one pair or law for each kind of release.
        times: how often each is released.
        outside: P mass of one release that the quadrature may leave out.
    """

    def __init__(
        self, *, pairs: Sequence[Pair | PrivacyLoss], times: Sequence[int], outside: float
    ) -> None:
        self._parts = [
            (*_log_quadrature(pair, outside), count)
            for pair, count in zip(pairs, times, strict=True)
        ]
        self._known: dict[float, tuple[float, float, float]] = {}

    def at(self, tilt: float) -> tuple[float, float, float]:
        """K, K′ and K″ at λ = `tilt`."""
        if tilt not in self._known:
            total = np.zeros(3)
            for losses, log_weights, count in self._parts:
                total += count * np.array(_cumulants(losses, log_weights, tilt))
            self._known[tilt] = (float(total[0]), float(total[1]), float(total[2]))
        return self._known[tilt]

    def entropy(self, tilt: float) -> float:
        """`λK′ − K`: minus the log of Chernoff's bound on P(loss > K′(λ))."""
        k, slope, _ = self.at(tilt)
        return tilt * slope - k

    def log_delta(self, tilt: float) -> float:
        """ln δ at ε = K′(tilt), the tilted law taken as normal."""
        k, slope, curvature = self.at(tilt)
        spread = math.sqrt(max(curvature, 1e-300))
        near, far = _log_scaled_tail(tilt * spread), _log_scaled_tail((tilt + 1) * spread)
        return k - tilt * slope + near + math.log(max(-math.expm1(far - near), 1e-300))


def estimated_epsilon(*, cumulants: Cumulants, delta: float) -> float:
    """ε at `delta`, the tilted law taken as normal; else, where that says 0, Chernoff's bound."""
    scale, log_delta = _scale(cumulants), math.log(delta)
    low = _lowest_tilt(scale)
    if cumulants.log_delta(low) > log_delta:
        tilt = _rise(lambda t: log_delta - cumulants.log_delta(t), low=low, scale=scale)
        if (found := cumulants.at(tilt)[1]) > 0:
            return found
    # Losses that are rare but large are not nearly normal.
    tilt = _rise(lambda t: cumulants.entropy(t) + log_delta, low=0.0, scale=scale)
    return max(cumulants.at(tilt)[1], 0.0)


def estimated_log_delta(*, cumulants: Cumulants, epsilon: float) -> float:
    """ln δ at `epsilon`, the tilted law taken as normal."""
    log_delta = cumulants.log_delta(_tilt_at(cumulants, epsilon))
    return min(max(log_delta, LOG_DELTA_FLOOR), 0.0)


def tilt_around(*, cumulants: Cumulants, epsilon: float) -> float:
    """The λ >= 0 whose tilted law has mean `epsilon`, as far as there is one."""
    return max(_tilt_at(cumulants, epsilon), 0.0)


def window_around(*, cumulants: Cumulants, epsilon: float, log_delta: float, tilt: float) -> Window:
    """The window that resolves a δ of e^`log_delta` at `epsilon`, under the law of `tilt`."""
    scale = _scale(cumulants)
    centre = cumulants.at(tilt)[0]
    # What the tilted law weighs above ε, where rare large losses are most of δ, may be little.
    rarity = centre - tilt * epsilon + log_kernel_peak(tilt) - log_delta
    margin = min(max(LEFT_MARGIN, rarity + LEFT_MARGIN / 2), 2 * LEFT_MARGIN)

    def gain(away: float) -> float:
        return cumulants.entropy(tilt + away) + log_delta - RIGHT_MARGIN

    def divergence(away: float) -> float:
        k, slope, _ = cumulants.at(tilt + away)
        return centre - k + away * slope - margin

    high_tilt = tilt
    if gain(0.0) < 0:
        high_tilt += _rise(gain, low=0.0, scale=scale)
    low_tilt = tilt - _rise(lambda away: divergence(-away), low=0.0, scale=scale)
    wrap_tilt = tilt + _rise(divergence, low=0.0, scale=scale)
    low = min(cumulants.at(low_tilt)[1], epsilon)
    clean_from = epsilon - _CLEAN * (epsilon - low)
    length = max(cumulants.at(high_tilt)[1] - low, cumulants.at(wrap_tilt)[1] - clean_from)
    return Window(
        tilt=tilt,
        epsilon=epsilon,
        low=low,
        high=low + max(length, 0.0),
        clean_from=clean_from,
        low_tilt=low_tilt,
        high_tilt=high_tilt,
        wrap_tilt=wrap_tilt,
    )


def log_kernel_peak(tilt: float) -> float:
    """ln of the largest `e^(−λx)(1 − e^(−x))` over x > 0.

    >>> log_kernel_peak(1.0) == math.log(0.25)
    True
    """
    return tilt * math.log(tilt / (tilt + 1)) - math.log1p(tilt) if tilt else 0.0


def _tilt_at(cumulants: Cumulants, epsilon: float) -> float:
    """λ with K′(λ) = `epsilon`, or where δ has vanished: no tilt reaches beyond the last loss."""
    scale = _scale(cumulants)
    low = _lowest_tilt(scale)
    if cumulants.at(low)[1] >= epsilon:
        return low

    def beyond(tilt: float) -> float:
        if tilt > 0 and cumulants.log_delta(tilt) < LOG_DELTA_FLOOR:
            return math.inf
        return cumulants.at(tilt)[1] - epsilon

    return _rise(beyond, low=low, scale=scale)


def _scale(cumulants: Cumulants) -> float:
    return 1 / math.sqrt(max(cumulants.at(0.0)[2], 1e-300))


def _lowest_tilt(scale: float) -> float:
    """Where ε is about 0, or δ about 1: a normal law has ε = 0 at λ = −1/2."""
    return max(-0.5, -8 * scale)


def _rise(function: Callable[[float], float], *, low: float, scale: float) -> float:
    """A tilt just past the root of `function`, which increases from a negative value at `low`."""
    step = scale
    while function(low + step) < 0 and step < 1e6 * (1 + scale):
        step *= 2
    return last_negative(function=function, low=low, high=low + step, tolerance=0.002)[1]


def _quadrature(pair: Pair | PrivacyLoss, outside: float) -> tuple[Array, Array]:
    if not isinstance(pair, Pair):
        return pair.quadrature(outside=outside)
    low, high = pair.range_holding(outside=outside)
    # Fine enough for the normals and for the bend of the loss, 1/shift wide.
    nodes = math.ceil((high - low) * max(5.0, 2 * pair.shift)) + 1
    z = np.linspace(low, high, nodes)
    return pair.loss(z), pair.numerator_density(z) * (z[1] - z[0])


def _log_quadrature(pair: Pair | PrivacyLoss, outside: float) -> tuple[Array, Array]:
    losses, weights = _quadrature(pair, outside)
    with np.errstate(divide="ignore"):
        return losses, np.log(weights)


def _cumulants(losses: Array, log_weights: Array, tilt: float) -> tuple[float, float, float]:
    # The largest term is 1: large losses are as rare as they are heavy.
    exponents = tilt * losses + log_weights
    peak = float(exponents.max())
    grown = np.exp(exponents - peak)
    moment = float(grown.sum())
    grown *= losses / moment
    slope = float(grown.sum())
    return peak + math.log(moment), slope, max(float((grown * losses).sum()) - slope**2, 0.0)


def _log_scaled_tail(x: float) -> float:
    """`ln(e^(x²/2)·Φ(−x))`: a normal tail, tilted back."""
    return 0.5 * x * x + float(log_ndtr(-x))
