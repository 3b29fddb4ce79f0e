"""Mechanisms that release one number, or one choice, at a stated sensitivity."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from dpacc_accounting.events.fields import MOST_TIMES, AnyEvent, real, shown


@dataclass(frozen=True, kw_only=True)
class Laplace(AnyEvent):
    """One number with Laplace noise: `value + Laplace(noise_multiplier·C)`.

    Args:
        noise_multiplier: the scale b of the noise over C, the most that adding or removing one unit
            changes the number (replacing one: 2C). One release alone has ε = 1/noise_multiplier.

    Raises:
        ValueError: the multiplier is not a finite number above 0.

    Source: Dwork, McSherry, Nissim & Smith 2006, Calibrating Noise to Sensitivity.

    >>> Laplace(noise_multiplier=2)
    Laplace(noise_multiplier=2.0)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _keep_positive(self, "noise_multiplier")


@dataclass(frozen=True, kw_only=True)
class DiscreteGaussian(AnyEvent):
    """One integer with discrete Gaussian noise: `value + k`, k with chance ∝ `e^(−k²/2σ²)`.

    Args:
        sigma: σ, in units of the integer.
        sensitivity: the most that adding or removing one unit changes it (replacing: twice that).

    Raises:
        ValueError: σ is not a finite number above 0, or the sensitivity no whole number above 0.

    Source: Canonne, Kamath & Steinke 2020 (arXiv 2004.00010).

    >>> DiscreteGaussian(sigma=10, sensitivity=3).sigma
    10.0
    """

    sigma: float
    sensitivity: int

    def __post_init__(self) -> None:
        _keep_positive(self, "sigma")
        _keep_whole(self, "sensitivity")


@dataclass(frozen=True, kw_only=True)
class Skellam(AnyEvent):
    """One integer with Skellam noise: the difference of two Poisson numbers of mean variance/2.

    Args:
        variance: of the noise, in squared units of the integer.
        sensitivity: the most that adding or removing one unit changes it (replacing: twice that).

    Raises:
        ValueError: the variance is not a finite number above 0, or the sensitivity no whole number
            above 0.

    Source: Agarwal, Kairouz & Liu 2021 (arXiv 2110.04995).

    >>> Skellam(variance=100, sensitivity=3).variance
    100.0
    """

    variance: float
    sensitivity: int

    def __post_init__(self) -> None:
        _keep_positive(self, "variance")
        _keep_whole(self, "sensitivity")


@dataclass(frozen=True, kw_only=True)
class ExponentialMechanism(AnyEvent):
    """A choice with bounded range: no two outcomes' log-odds change by more than ε between them.

    Choosing i with chance ∝ `e^(ε·u_i/(2Δ))`, Δ being the sensitivity of every score u_i, is one.

    One alone is priced exactly. Several are priced by the envelope of all such choices, or by the
    Rényi divergence of the worst choice at each order, whichever is less: certified from above.
    From below each is a choice between two candidates whose lead is turned round.

    Args:
        epsilon: the range, under the adjacency that is priced.

    Raises:
        ValueError: it is not a finite number above 0.

    Source: McSherry & Talwar 2007; Dong, Durfee & Rogers 2020 (arXiv 1909.13830).

    >>> ExponentialMechanism(epsilon=1)
    ExponentialMechanism(epsilon=1.0)
    """

    epsilon: float

    def __post_init__(self) -> None:
        _keep_positive(self, "epsilon")


Mechanism = Laplace | DiscreteGaussian | Skellam | ExponentialMechanism


def _keep_positive(event: Any, name: str) -> None:
    value = real(getattr(event, name), name=name)
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} is not a finite number above 0")
    object.__setattr__(event, name, value)


def _keep_whole(event: Any, name: str) -> None:
    value = getattr(event, name)
    try:
        whole = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = 0
    if not 1 <= whole <= MOST_TIMES:
        raise ValueError(f"{name}={shown(value)} is not a whole number from 1 to 10^300")
    object.__setattr__(event, name, whole)
