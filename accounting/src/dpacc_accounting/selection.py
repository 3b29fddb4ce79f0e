"""The best of a random number of runs: what choosing hyper-parameters costs.

One run yields y with law P on one dataset and Q on its neighbour; the order of the y, ties broken
at random, is whatever the search likes. With f the generating function of the number of runs K,
the chosen y has the law `P(y)·f′(P(no better than y))`. Let one run be (ε₁, δ₁)-private. Then
`Q(better) <= e^ε₁·P(better) + δ₁` bounds how far the factors f′ lie apart by

- truncated negative binomial, f′(x) ∝ (1 − (1 − γ)x)^−(1 + η): `R^(1 + η)` with
  `R = max(1 + δ₁(1 − γ)/γ, 1/(γ + (1 − γ)(1 − δ₁)e^−ε₁))`;
- Poisson, f′(x) ∝ e^(mx): `R = e^(m·δ(0))`, with δ(0) the total variation of one run (take η = 0).

As f′ <= f′(1) = E[K] = m, for every ε

    δ_chosen(ε) <= m·δ(ε − (1 + η)·ln R)

The bound by Rényi divergence is that of the paper, and composes.

Source: Papernot & Steinke 2022 (arXiv 2110.03620); Koskela, Redberg & Wang 2024 (arXiv 2402.06701),
who use privacy profiles likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.events.event import Selected
from dpacc_accounting.events.fields import real, shown

# Questions to the profile of one run; any ε₁ gives a bound, and this is close to the best.
_HALVINGS = 12


def selection_cost(*, event: Selected, base_delta: Callable[[float], float]) -> float:
    """(1 + η)·ln R: by how much ε of one run, at δ/m, grows.

    Args:
        event: what is selected, and from how many runs.
        base_delta: a certified δ(ε) of one run, ε >= 0, over all neighbours in both directions.

    >>> from dpacc_accounting import Gaussian
    >>> search = Selected(event=Gaussian(noise_multiplier=1.0), mean_runs=10, shape=1)
    >>> pure = selection_cost(event=search, base_delta=lambda e: 0.0 if e >= 1 else 0.6)
    >>> 1.6 < pure < 2.0      # choosing from a geometric number of 1-private runs: below 3 in all
    True
    """
    if event.mean_runs == 1 and math.isfinite(event.shape):
        return 0.0
    if math.isinf(event.shape):
        return event.mean_runs * base_delta(0.0)
    gamma = halting_chance(event=event)

    def ratios(epsilon: float) -> tuple[float, float]:
        delta = base_delta(epsilon)
        rest = (1 - gamma) * (1 - delta) * math.exp(-epsilon)
        return 1 + delta * (1 - gamma) / gamma, 1 / (gamma + rest)

    low, high = 0.0, -math.log(gamma)
    best = min(max(ratios(low)), max(ratios(high)))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        falling, rising = ratios(middle)
        best = min(best, max(falling, rising))
        low, high = (middle, high) if falling > rising else (low, middle)
    return (1 + event.shape) * math.log(best) * (1 + 1e-12)


def halting_chance(*, event: Selected) -> float:
    """γ of the truncated negative binomial of this mean and shape, from below.

    `E[K] = η(1/γ − 1)/(1 − γ^η)`, and `(1/γ − 1)/ln(1/γ)` at η = 0.

    >>> from dpacc_accounting import Gaussian
    >>> once = Gaussian(noise_multiplier=1.0)
    >>> round(halting_chance(event=Selected(event=once, mean_runs=8, shape=1)), 9)
    0.125
    """
    if event.mean_runs == 1:
        return 1.0

    def excess(log_inverse: float) -> float:
        shape = event.shape
        spread = -math.expm1(-shape * log_inverse) / shape if shape else log_inverse
        return math.expm1(log_inverse) / spread - event.mean_runs

    high = math.log(2 * (event.shape + 1) * event.mean_runs) + 1
    while excess(high) < 0:
        high *= 2
    return math.exp(-last_negative(function=excess, low=1e-12, high=high, tolerance=1e-14)[1])


def runs_at(*, event: Selected, quantile: float) -> int:
    """How many runs to make, for a secret uniform random number in [0, 1).

    The number must not be known to whoever sees the result, nor depend on the data; all runs are
    made, and the best alone is released. A Poisson number may be 0: then nothing is released.

    Args:
        event: the law of the number of runs.
        quantile: from a secure source, such as `secrets.SystemRandom().random()`.

    Raises:
        ValueError: the quantile is outside [0, 1).

    Source: Papernot & Steinke 2022 (arXiv 2110.03620).

    >>> from dpacc_accounting import Gaussian
    >>> coin = Selected(event=Gaussian(noise_multiplier=1.0), mean_runs=2, shape=1)
    >>> runs_at(event=coin, quantile=0.4), runs_at(event=coin, quantile=0.6)
    (1, 2)
    """
    if not isinstance(event, Selected):
        raise ValueError(f"event={shown(event)} is not a Selected, whose runs can be drawn")
    quantile = real(quantile, name="quantile")
    if not 0 <= quantile < 1:
        raise ValueError(f"quantile={quantile} is outside [0, 1)")
    below = 0.0
    for runs, chance in _chances(event):
        below += chance
        # Far out, chances no longer change the sum.
        if quantile < below or (runs > event.mean_runs and chance < 1e-18):
            return runs
    raise AssertionError("the number of runs has no end")


def _chances(event: Selected) -> Iterator[tuple[int, float]]:
    """Every possible number of runs, and how likely it is."""
    if math.isinf(event.shape):
        runs, chance = 0, math.exp(-event.mean_runs)
        while True:
            yield runs, chance
            runs += 1
            chance *= event.mean_runs / runs
    gamma, shape = halting_chance(event=event), event.shape
    spread = math.expm1(-shape * math.log(gamma)) / shape if shape else -math.log(gamma)
    runs, chance = 1, (1 - gamma) / spread if gamma < 1 else 1.0
    while True:
        yield runs, chance
        chance *= (1 - gamma) * (runs + shape) / (runs + 1)
        runs += 1
