"""Rényi divergence of a Gaussian sum that a unit moves by a random amount, in both directions.

With r the ratio of the densities with and without the unit, E[r] = 1 without it, and

    removed:  ln E[r^α] / (α − 1)        added:  ln E[r^(1 − α)] / (α − 1)

`r^p − 1 − p·(r − 1)`, p = α or 1 − α, is never negative and has the mean of `r^p − 1`: summed over
nodes it keeps the digits of a moment close to 1.
"""

from __future__ import annotations

import math

import numpy as np

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.pld.dominating_pairs import Array

_MOST_NODES = 100_000
# Logarithms beyond which a ratio, or its power, is not taken out of them.
_FAR = 30.0


def random_amount_divergence(*, event: MixtureOfGaussians, order: float) -> float:
    """The larger divergence of order α > 1, add-or-remove; infinite where nodes do not resolve it.

    >>> half = MixtureOfGaussians(noise_multiplier=2.0, weights=(1.0,), sensitivities=(1.0,))
    >>> round(random_amount_divergence(event=half, order=3.0), 9)
    0.375
    """
    if event.noise_multiplier == 0 and event.amounts:
        return math.inf
    moments = [_log_moment(event, power) for power in (order, 1 - order)]
    return max(moments) / (order - 1)


def _log_moment(event: MixtureOfGaussians, power: float) -> float:
    """`ln E[r^power]` by quadrature."""
    levels = {size / event.noise_multiplier: chance for size, chance in event.amounts.items()}
    most = max(levels, default=0.0)
    ends = (0.0, power * most)
    low, high = min(ends) - 12.0, max(*ends, most) + 12.0
    count = (high - low) * max(8.0, 4 * most)
    if not count < _MOST_NODES:
        return math.inf
    z = np.linspace(low, high, math.ceil(count))
    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(z[1] - z[0])
    log_growth = _log_growth(_log_ratio(levels, z), power)
    peak = float((log_density + log_growth).max())
    if peak == -math.inf:
        return 0.0
    total = peak + math.log(float(np.exp(log_density + log_growth - peak).sum()))
    return math.log1p(math.exp(total)) if total < 0 else float(np.logaddexp(0.0, total))


def _log_ratio(levels: dict[float, float], z: Array) -> Array:
    """ln r at each node, accurate where it is near 0."""
    rest = max(1 - math.fsum(levels.values()), 0.0)
    plain = np.full_like(z, math.log(rest) if rest else -math.inf)
    gain = np.zeros_like(z)
    for level, chance in levels.items():
        exponent = level * z - 0.5 * level**2
        plain = np.logaddexp(plain, exponent + math.log(chance))
        gain = gain + chance * np.expm1(np.minimum(exponent, _FAR))
    near = (np.abs(plain) < 1) & (max(levels, default=0.0) * np.abs(z) < _FAR)
    return np.where(near, np.log1p(np.maximum(gain, -0.9)), plain)


def _log_growth(log_ratio: Array, power: float) -> Array:
    """`ln(r^p − 1 − p·(r − 1))`, p > 1 or p < 0: exact, or from above where doubles would end."""
    far = (log_ratio > _FAR) | (power * log_ratio > _FAR)
    small = np.where(far, 0.0, log_ratio)
    grown = np.maximum(np.expm1(power * small) - power * np.expm1(small), 0.0)
    large = np.where(far, log_ratio, _FAR)
    with np.errstate(divide="ignore"):
        exact = np.log(grown)
    if power > 1:
        most = power * large + np.log(-np.expm1(math.log(power) - (power - 1) * large))
        return np.where(far, np.logaddexp(most, math.log(power - 1)), exact)
    steep = np.where(far & (log_ratio <= 0), log_ratio, -_FAR)
    most = power * steep + np.log(-np.expm1(-power * steep))
    return np.where(far, np.where(log_ratio > 0, math.log(-power) + large, most), exact)
