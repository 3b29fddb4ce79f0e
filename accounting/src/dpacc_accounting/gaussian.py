"""The Gaussian mechanism in closed form: δ(ε), ε(δ) and μ(ε, δ), without discretisation."""

from __future__ import annotations

import math

from dpacc_accounting.bracketing import last_negative

_SQRT2 = math.sqrt(2.0)
_SQRT2PI = math.sqrt(2.0 * math.pi)


def gaussian_delta(*, mu: float, epsilon: float) -> float:
    """δ of μ-Gaussian differential privacy at ε: `Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)`.

    Args:
        mu: sensitivity over noise, both in the same unit: 1/σ under add-or-remove adjacency,
            2/σ under replace-one; `sqrt(Σ μ_i²)` for a composition; ∞ where 1/σ is no double.
        epsilon: ε >= 0.

    Source: Balle & Wang 2018 (arXiv 1805.06530), theorem 8; Dong, Roth & Su 2019
    (arXiv 1905.02383), corollary 2.13.

    >>> round(gaussian_delta(mu=1.0, epsilon=1.0), 6)
    0.126937
    """
    if mu == 0:
        return 0.0
    if mu == math.inf:
        return 1.0
    start = epsilon / mu - mu / 2
    if start < -5:
        return _normal_tail(start) - mills_ratio(start + mu) * _normal_density(start)
    # e^ε φ(start + μ) = φ(start): factor it out, and nothing overflows or cancels in the tail.
    gap = mills_ratio(start) - mills_ratio(start + mu)
    return _normal_density(start) * max(gap, 0.0)


def gaussian_epsilon(*, mu: float, delta: float) -> float:
    """The smallest ε with `gaussian_delta(mu, ε) <= delta`, from above (relative 1e-13).

    >>> round(gaussian_epsilon(mu=1.0, delta=1e-5), 5)
    4.37718
    """
    if gaussian_delta(mu=mu, epsilon=0.0) <= delta:
        return 0.0
    # Chernoff: P(loss > ε) <= δ at this ε.
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    if high == math.inf:
        return math.inf
    return last_negative(
        function=lambda epsilon: delta - gaussian_delta(mu=mu, epsilon=epsilon),
        low=0.0,
        high=high,
        tolerance=1e-13,
    )[1]


def gaussian_mu(*, epsilon: float, delta: float) -> float:
    """The largest μ whose Gaussian mechanism is (ε, δ)-private, from below (relative 1e-13).

    >>> mu = gaussian_mu(epsilon=8.0, delta=1e-5)
    >>> gaussian_delta(mu=mu, epsilon=8.0) <= 1e-5
    True
    """
    high = 1.0
    while gaussian_delta(mu=high, epsilon=epsilon) <= delta:
        high *= 2
    return last_negative(
        function=lambda mu: gaussian_delta(mu=mu, epsilon=epsilon) - delta,
        low=0.0,
        high=high,
        tolerance=1e-13,
    )[0]


def mills_ratio(z: float) -> float:
    """`(1 − Φ(z)) / φ(z)`, accurate in the far tail.

    >>> round(mills_ratio(0.0), 6), round(mills_ratio(100.0), 8)
    (1.253314, 0.009999)
    """
    if z < 20:
        return _normal_tail(z) * _SQRT2PI * math.exp(0.5 * z * z)
    # Laplace's continued fraction; twelve levels are exact to double precision for z >= 20.
    fraction = z
    for level in range(12, 0, -1):
        fraction = z + level / fraction
    return 1 / fraction


def _normal_tail(z: float) -> float:
    return 0.5 * math.erfc(z / _SQRT2)


def _normal_density(z: float) -> float:
    return math.exp(-0.5 * z * z) / _SQRT2PI
