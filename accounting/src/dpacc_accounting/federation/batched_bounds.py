"""Upper bounds on ε for thousands of different clients at once.

Each client's loss is composed as `pld` does it, by a tilted Fourier transform of dots that lie
above its hockey-stick curve, but on a coarser grid and with all clients of a batch in one array.
Only the upper bound is computed: what wraps around the window can only add to it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import erfcx

from dpacc_accounting.events.flattening import Release
from dpacc_accounting.federation.batched_losses import (
    BatchedLosses,
    Places,
    Rows,
    discretized_above,
)
from dpacc_accounting.pld.dominating_pairs import Array

# Relative excess of ε that the grid may cause, roughly.
_TOLERANCE = 5e-3
# Standard deviations of the tilted law: how far below the estimate the window begins, and how far
# below it ε may lie.
_BELOW, _LOWEST = 3.5, 1.0
# Share of δ that a release's grid, or the window, leaves out.
_LEFT_OUT = 1e-3
# An ε further than this from its estimate came from a grid that does not fit it.
_MISSED = 0.1
_NODES = 96
_MOST_THREADS = 8
_LARGEST_GRID = 1 << 14
# A grid that would be larger is cut this many times more coarsely at most, and refused beyond.
_COARSEST = 8.0
_BATCH = 1 << 17
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class _Estimate:
    """Where each client's composed loss lives: no bound, only a plan."""

    tilt: Array
    epsilon: Array
    spread: Array
    top: Array
    steeper: Array

    def only(self, chosen: Places) -> _Estimate:
        """The estimates of the `chosen` clients."""
        return _Estimate(*(getattr(self, field.name)[chosen] for field in fields(self)))


def batched_epsilons(*, laws: Sequence[Mapping[Release, int]], delta: float) -> Array:
    """An upper bound on each client's ε at `delta`, add-or-remove; NaN where it has to be refused.

    Args:
        laws: how often each client makes each release, with positive noise.
        delta: δ in (0, 1).

    >>> law = {Release(0.01, 1.0): 1000}
    >>> bool(1.828 < batched_epsilons(laws=[law], delta=1e-5)[0] < 1.84)
    True
    """
    bounds = [_one_view(laws, delta, removing=removing) for removing in (True, False)]
    return np.maximum(*bounds)


def _one_view(laws: Sequence[Mapping[Release, int]], delta: float, *, removing: bool) -> Array:
    """Bounds for one choice of who is P, refitted once where the estimate was far off."""
    rows = Rows.of(laws=laws, removing=removing)
    with np.errstate(all="ignore"):
        plan = _estimated(rows, delta)
        found = _planned(laws, rows, plan, delta)
        missed = np.flatnonzero(np.abs(found - plan.epsilon) > _MISSED * plan.epsilon)
        if len(missed):
            some = [laws[k] for k in missed.tolist()]
            rows = Rows.of(laws=some, removing=removing)
            again = _planned(some, rows, _estimated(rows, delta, near=found[missed]), delta)
            found[missed] = np.fmin(found[missed], again)
    return found


def _planned(
    laws: Sequence[Mapping[Release, int]], rows: Rows, plan: _Estimate, delta: float
) -> Array:
    """Bounds on the grids that fit `plan`; NaN where there is none."""
    found = np.full(len(laws), np.nan)
    step, sizes = _sized(rows, plan, delta)
    usable = np.flatnonzero((plan.epsilon > 0) & np.isfinite(step) & (sizes > 0))

    def bound(batch: Places) -> None:
        chosen = Rows.of(laws=[laws[k] for k in batch.tolist()], removing=rows.removing)
        with np.errstate(all="ignore"):
            found[batch] = _bounded(chosen, plan.only(batch), step[batch], delta)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as threads:
        list(threads.map(bound, _batches(usable, sizes)))
    return found


def _batches(usable: Places, sizes: Array) -> list[Places]:
    """Clients of similar size together, so that little of an array is padding."""
    order = usable[np.argsort(sizes[usable])]
    batches = []
    while len(order):
        count = max(int(_BATCH // sizes[order[0]]), 1)
        batches.append(order[:count])
        order = order[count:]
    return batches


def _estimated(rows: Rows, delta: float, *, near: Array | None = None) -> _Estimate:
    """The tilt at which the law, taken as normal, has this δ, or at which its mean is `near`.

    By bisection, all clients at once.
    """
    outside = np.full(len(rows.q), 1e-4 * delta) / rows.total(rows.times)[rows.client]
    low, high = rows.range_holding(outside)
    output = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _NODES)
    losses = rows.loss(output)
    weights = _density(rows, output) * ((high - low) / (_NODES - 1))[:, None]
    scale = 1 / np.sqrt(np.maximum(_cumulants(rows, losses, weights, np.zeros(0))[2], 1e-300))
    below, above = np.full_like(scale, -9.0), np.full_like(scale, 9.0)
    for _ in range(26):
        middle = (below + above) / 2
        tilt = scale * np.exp(middle)
        k, slope, curvature = _cumulants(rows, losses, weights, tilt)
        spread = np.sqrt(np.maximum(curvature, 1e-300))
        small = k - tilt * slope + np.log(_kernel(tilt, spread)) <= math.log(delta)
        if near is not None:
            small = slope >= near
        below, above = np.where(small, below, middle), np.where(small, middle, above)
    top, steeper = np.full_like(tilt, np.inf), tilt
    for deviations in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0):
        # Chernoff: P leaves a sliver of δ above this.
        more = tilt + deviations / spread
        end = (_cumulants(rows, losses, weights, more)[0] - math.log(_LEFT_OUT * delta)) / more
        top, steeper = np.where(end < top, end, top), np.where(end < top, more, steeper)
    return _Estimate(tilt, slope, spread, top, steeper)


def _density(rows: Rows, output: Array) -> Array:
    still = np.exp(-0.5 * output**2)
    if rows.removing:
        q, shift = rows.q[:, None], rows.shift[:, None]
        still = (1 - q) * still + q * np.exp(-0.5 * (output - shift) ** 2)
    return np.asarray(still / math.sqrt(2 * math.pi))


def _kernel(tilt: Array, spread: Array) -> Array:
    """`E[e^(−λx)(1 − e^(−x))_+]` for x ~ N(0, spread²)."""
    near, far = erfcx(tilt * spread / math.sqrt(2)), erfcx((tilt + 1) * spread / math.sqrt(2))
    return np.asarray(np.maximum(0.5 * (near - far), 1e-300))


def _cumulants(
    rows: Rows, losses: Array, weights: Array, tilt: Array
) -> tuple[Array, Array, Array]:
    """ln E[e^(λ·loss)] of each client and its derivatives; an empty `tilt` means 0."""
    exponents = (tilt[rows.client][:, None] if len(tilt) else 0.0) * losses
    peak = exponents.max(axis=1, keepdims=True)
    grown = weights * np.exp(exponents - peak)
    moment = grown.sum(axis=1)
    slope = (grown * losses).sum(axis=1) / moment
    curvature = (grown * losses**2).sum(axis=1) / moment - slope**2
    logs = rows.times * (np.log(moment) + peak[:, 0])
    return rows.total(logs), rows.total(rows.times * slope), rows.total(rows.times * curvature)


def _step(rows: Rows, plan: _Estimate) -> Array:
    """The grid whose excess variance, about T·h²/6, moves ε by `_TOLERANCE`."""
    moved = _TOLERANCE * np.maximum(plan.epsilon, 0.1 * plan.spread)
    return np.sqrt(12 * moved / (rows.total(rows.times) * (1 + plan.tilt)))


def _sized(rows: Rows, plan: _Estimate, delta: float) -> tuple[Array, Array]:
    """Each client's step, and the grid points of the larger of its window and its releases.

    0 points where they would be too many.
    """
    low, high = rows.range_holding(_outside(rows, delta))
    reach = np.ptp(rows.loss(np.stack([low, high], axis=1)), axis=1)
    width = np.maximum(np.maximum.reduceat(reach, rows.starts), _window(plan))
    fitting, fits = _step(rows, plan), width / (_LARGEST_GRID - 1)
    step = np.maximum(fitting, fits)
    return step, np.where(fits < _COARSEST * fitting, np.ceil(width / step) + 3, 0)


def _window(plan: _Estimate) -> Array:
    """The losses that are kept, from some deviations below ε to where δ has thinned out."""
    return np.maximum(plan.top - plan.epsilon, plan.spread) + _BELOW * plan.spread


def _outside(rows: Rows, delta: float) -> Array:
    return _LEFT_OUT * delta / (2 * rows.total(rows.times)[rows.client])


def _bounded(rows: Rows, plan: _Estimate, step: Array, delta: float) -> Array:
    """ε of one batch, from above."""
    losses = discretized_above(rows=rows, step=step[rows.client], outside=_outside(rows, delta))
    size = _fast_length(float((_window(plan) / step).max()))
    base = rows.total(rows.times * losses.base)
    first = np.floor((plan.epsilon - _BELOW * plan.spread - base) / step)
    tilted, log_moment = _tilted(rows, losses, plan.tilt)
    composed, rounding = _composed(rows, tilted, size)
    # Where ε may lie, and beyond: nothing below takes part in δ.
    start = int(((_BELOW - _LOWEST) * plan.spread / step).min())
    place = (np.arange(start, size) + first[:, None].astype(np.int64)) % size
    away = (base + step * first - plan.epsilon)[:, None] + step[:, None] * np.arange(start, size)
    untilted = np.take_along_axis(composed, place, axis=1) * np.exp(-plan.tilt[:, None] * away)
    scale = np.exp(log_moment - plan.tilt * plan.epsilon)
    top = plan.epsilon + away[:, -1] + step
    beyond = np.exp(_tilted(rows, losses, plan.steeper)[1] - plan.steeper * top)
    escaped = rows.total(rows.times * losses.infinite)
    # Rounding, untilted at the lowest ε that is accepted.
    points = 1 / (step * plan.tilt * (plan.tilt + 1)) + 1
    blur = scale * rounding * points * np.exp(_LOWEST * plan.tilt * plan.spread)
    goal = (delta - beyond - escaped - blur) / scale
    found = _crossing(untilted, away, goal)
    accepted = (goal * scale > 0.5 * delta) & (found >= -_LOWEST * plan.spread)
    return np.where(accepted, np.maximum(plan.epsilon + found, 0.0) * (1 + 1e-9), np.nan)


def _tilted(rows: Rows, losses: BatchedLosses, tilt: Array) -> tuple[Array, Array]:
    """Each row's law under e^(λ·loss), and ln of the client's moment that this divides by."""
    exponents = tilt[rows.client][:, None] * losses.losses()
    peak = exponents.max(axis=1, keepdims=True, where=losses.masses > 0, initial=-np.inf)
    tilted = losses.masses * np.exp(np.minimum(exponents - peak, 0.0))
    moment = tilted.sum(axis=1, keepdims=True)
    tilted /= moment
    return tilted, rows.total(rows.times * ((np.log(moment) + peak)[:, 0] + 1e-14))


def _composed(rows: Rows, tilted: Array, size: int) -> tuple[Array, Array]:
    """Each client's tilted law on a circle of `size` points, and its rounding error at a point."""
    padded = np.zeros((len(tilted), -(-tilted.shape[1] // size) * size))
    padded[:, : tilted.shape[1]] = tilted
    spectrum = np.fft.rfft(padded.reshape(len(tilted), -1, size).sum(axis=1), axis=1)
    times = rows.times[:, None]
    height = rows.total(times * 0.5 * np.log(spectrum.real**2 + spectrum.imag**2))
    # Of a sum of many losses only the lowest frequencies survive.
    alive = height > -46.0
    kept = alive[rows.client]
    angle = np.zeros_like(spectrum.real)
    angle[kept] = np.angle(spectrum[kept])
    turned = rows.total(times * angle)
    power = np.zeros((len(alive), alive.shape[1]), dtype=np.complex128)
    power[alive] = np.exp(height[alive] + 1j * turned[alive])
    peak = 2 * np.abs(power).sum(axis=1) / size
    rounding = 32 * _EPS * (rows.total(rows.times) + math.log2(size)) * peak + 1e-19
    return np.fft.irfft(power, size, axis=1), rounding


def _crossing(untilted: Array, away: Array, goal: Array) -> Array:
    """Where `Σ untilted·(1 − e^(x − away))_+` falls to `goal`; NaN outside the grid.

    Between grid points the sum is A − e^x·B, with A and B sums over the points above.
    """
    grown = np.exp(away)
    above = np.cumsum(untilted[:, ::-1], axis=1)[:, ::-1]
    shrunk = np.cumsum((untilted / grown)[:, ::-1], axis=1)[:, ::-1]
    small = above - grown * shrunk <= goal[:, None]
    at = np.argmax(small, axis=1)
    rows = np.arange(len(at))
    crossing = np.log((above[rows, at] - goal) / shrunk[rows, at])
    return np.where(small[rows, at] & (at > 0), crossing, np.nan)


def _fast_length(points: float) -> int:
    """A length, at least `points`, that the Fourier transform is fast for."""
    power = 1 << max(math.ceil(math.log2(points + 2)), 6)
    return min(n for n in (power, power // 8 * 5, power // 4 * 3, power // 8 * 7) if n > points + 1)
