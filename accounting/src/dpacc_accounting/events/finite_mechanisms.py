"""Events of few losses, and those of which nothing is known but (ε, δ) or ρ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpacc_accounting.events.fields import AnyEvent, chance, positive_count, real


@dataclass(frozen=True, kw_only=True)
class ApproximateDP(AnyEvent):
    """Anything at all that is known to be (ε, δ)-private, and about which nothing else is.

    Priced as the worst such thing: with chance δ all is revealed, else one bit is told truly with
    chance e^ε/(1 + e^ε). Some mechanism is exactly so, and no other is worse, however composed.

    Args:
        epsilon: ε >= 0, under the adjacency that is priced.
        delta: δ in [0, 1]; 0 for pure ε-differential privacy.

    Raises:
        ValueError: a number is out of range.

    Source: Kairouz, Oh & Viswanath 2015 (arXiv 1311.0776), theorem 3.1; Zhu, Dong & Wang 2022
    (arXiv 2106.08567) on composing dominating pairs.

    >>> ApproximateDP(epsilon=1, delta=1e-6)
    ApproximateDP(epsilon=1.0, delta=1e-06)
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        epsilon, delta = real(self.epsilon, name="epsilon"), real(self.delta, name="delta")
        if not 0 <= epsilon < math.inf:
            raise ValueError(f"epsilon={epsilon} is not a finite number >= 0")
        if not 0 <= delta <= 1:
            raise ValueError(f"delta={delta} is outside [0, 1]; give 0 for pure ε")
        object.__setattr__(self, "epsilon", epsilon)
        object.__setattr__(self, "delta", delta)


@dataclass(frozen=True, kw_only=True)
class RandomizedResponse(AnyEvent):
    """One unit's answer among `options`: with chance `noise` a uniform one, else the true one.

    Two answers of which a unit may have either are told apart by two outcomes alone, by
    `ε = ln(1 + options·(1 − noise)/noise)`; the others are as likely under both. Priced under
    replace-one adjacency: an answer shows that its unit is there.

    Args:
        noise: chance of a uniform answer, in (0, 1].
        options: how many answers there are, at least 2.

    Raises:
        ValueError: a number is out of range.

    Source: Warner 1965; Kairouz, Bonawitz & Ramage 2016 (arXiv 1602.07387), k-ary.

    >>> RandomizedResponse(noise=0.5, options=2).noise
    0.5
    """

    noise: float
    options: int

    def __post_init__(self) -> None:
        noise = chance(self.noise, name="noise")
        if noise == 0:
            raise ValueError("noise=0 is the true answer, which nothing protects; give above 0")
        options = positive_count(self.options, name="options")
        if options == 1:
            raise ValueError("options=1 leaves nothing to answer; give at least 2")
        object.__setattr__(self, "noise", noise)
        object.__setattr__(self, "options", options)


@dataclass(frozen=True, kw_only=True)
class DiscreteLaplace(AnyEvent):
    """One integer with discrete Laplace (geometric) noise: `value + k`, k ∝ `e^(−decay·|k|)`.

    The chance is log-concave, so that the largest shift dominates; swapping the datasets mirrors
    the noise. One release alone has ε = decay·sensitivity (replacing one: twice that).

    Args:
        decay: a, by which the log of a chance falls from one integer to the next.
        sensitivity: the most that adding or removing one unit changes it (replacing: twice that).

    Raises:
        ValueError: a number is out of range.

    Source: Ghosh, Roughgarden & Sundararajan 2009 (arXiv 0811.2841).

    >>> DiscreteLaplace(decay=0.5, sensitivity=2).sensitivity
    2
    """

    decay: float
    sensitivity: int

    def __post_init__(self) -> None:
        decay = real(self.decay, name="decay")
        if not 0 < decay < math.inf:
            raise ValueError(f"decay={decay} is not a finite number above 0")
        object.__setattr__(self, "decay", decay)
        whole = positive_count(self.sensitivity, name="sensitivity")
        object.__setattr__(self, "sensitivity", whole)


@dataclass(frozen=True, kw_only=True)
class TruncatedDiscreteGaussian(AnyEvent):
    """One integer with discrete Gaussian noise that is never larger than `bound` either way.

    Outcomes that only one of two neighbours can have give the unit away: no noise, however wide,
    has ε at a δ below their chance. The chance is log-concave, so that the largest shift dominates;
    swapping the datasets mirrors the noise.

    Args:
        sigma: σ, before the noise is cut, in units of the integer.
        sensitivity: the most that adding or removing one unit changes it (replacing: twice that).
        bound: the largest |k| of the noise.

    Raises:
        ValueError: a number is out of range.

    Source: Canonne, Kamath & Steinke 2020 (arXiv 2004.00010), whose noise is not cut.

    >>> TruncatedDiscreteGaussian(sigma=2, sensitivity=1, bound=20).bound
    20
    """

    sigma: float
    sensitivity: int
    bound: int

    def __post_init__(self) -> None:
        sigma = real(self.sigma, name="sigma")
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma={sigma} is not a finite number above 0")
        object.__setattr__(self, "sigma", sigma)
        for name in ("sensitivity", "bound"):
            object.__setattr__(self, name, positive_count(getattr(self, name), name=name))


@dataclass(frozen=True, kw_only=True)
class PermuteAndFlip(AnyEvent):
    """A choice: candidates in random order, each taken with chance `e^(ε·(u − max u)/(2Δ))`.

    Δ is the sensitivity of every score u. It never errs more than the exponential mechanism, but
    has no bounded range: it is priced as any ε-private choice, and from below as one between two
    candidates whose lead of Δ is turned round.

    Args:
        epsilon: ε > 0, under the adjacency that is priced.

    Raises:
        ValueError: it is not a finite number above 0.

    Source: McKenna & Sheldon 2020 (arXiv 2010.12603), theorem 1.

    >>> PermuteAndFlip(epsilon=1)
    PermuteAndFlip(epsilon=1.0)
    """

    epsilon: float

    def __post_init__(self) -> None:
        epsilon = real(self.epsilon, name="epsilon")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon={epsilon} is not a finite number above 0")
        object.__setattr__(self, "epsilon", epsilon)


@dataclass(frozen=True, kw_only=True)
class ZCDP(AnyEvent):
    """Anything at all that is known to be (ξ, ρ)-zCDP: Rényi divergence at most ξ + ρ·α, α > 1.

    Priced by that divergence, which adds up; from below as a Gaussian, of which ρ is exact. It has
    no privacy loss distribution, and a sample of it no known amplification.

    Args:
        rho: ρ >= 0, under the adjacency that is priced.
        xi: ξ >= 0, most often 0.

    Raises:
        ValueError: a number is not finite and >= 0.

    Source: Bun & Steinke 2016 (arXiv 1605.02065), definitions 1.1 and 8.1.

    >>> ZCDP(rho=0.5)
    ZCDP(rho=0.5, xi=0.0)
    """

    rho: float
    xi: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rho", "xi"):
            value = real(getattr(self, name), name=name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} is not a finite number >= 0")
            object.__setattr__(self, name, value)


FiniteMechanism = (
    ApproximateDP
    | RandomizedResponse
    | DiscreteLaplace
    | TruncatedDiscreteGaussian
    | PermuteAndFlip
)
