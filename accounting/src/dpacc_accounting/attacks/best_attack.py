"""What the best possible attack gains from an event: the guarantee in an attacker's terms.

The attacker knows every detail of the run and all data but one unit's, and decides whether that
unit was there. Every figure bounds all such attacks, known or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from scipy.special import ndtri

from dpacc_accounting.attacks.tradeoff import exact_mu, gaussian_power
from dpacc_accounting.events.arguments import an_event, require_rate, require_unit
from dpacc_accounting.events.event import Event
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pricing.price import delta as price_delta

# The search for the best line of the trade-off curve stops at steps of this share of μ.
_FINEST_STEP = 0.02


@dataclass(frozen=True, kw_only=True)
class AttackRisk:
    """How well any membership attack on an event can do, and what that assumes.

    Args:
        advantage: at most by how much true positives exceed false positives, at any rate.
        false_positives: α, the rate at which `true_positives` is stated.
        true_positives: the largest true-positive rate at α.
        prior: chance, to the attacker, that the unit was there before anything was released.
        error: Bayes risk at this prior: no attack errs less often on average.
        predictive_value: at most this share of the accusations at α are right, at this prior.
        event: what was released, and so how it was sampled.
        adjacency: which datasets are told apart.
        unit: whose data one unit is.
        method: how δ(ε) was priced.
    """

    advantage: float
    false_positives: float
    true_positives: float
    prior: float
    error: float
    predictive_value: float
    event: Event
    adjacency: Adjacency
    unit: str
    method: str


def attack_risk(
    *,
    event: Event,
    false_positives: float = 0.01,
    prior: float = 0.5,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
) -> AttackRisk:
    """Every attack figure of `event` at one false-positive rate and one prior.

    Args:
        event: what is released about the same data.
        false_positives: α in [0, 1].
        prior: π in [0, 1].
        adjacency: which datasets the attacker must tell apart.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian", as in `epsilon`.

    Raises:
        ValueError: an argument is out of range, or `method` cannot price `event`.

    Source: Dong, Roth & Su 2022 (arXiv 1905.02383) for errors at a rate of false positives;
    Yeom et al. 2018 (arXiv 1709.01604) for the advantage.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> risk = attack_risk(event=Gaussian(noise_multiplier=1.0))
    >>> round(risk.advantage, 4), round(risk.true_positives, 4), round(risk.error, 4)
    (0.3829, 0.0924, 0.3085)
    """
    false_positives = require_rate("false_positives", false_positives)
    event, prior, unit = an_event(event), require_rate("prior", prior), require_unit(unit)
    asked = _Attacked(event, adjacency, method)
    caught = asked.detection(false_positives)
    return AttackRisk(
        advantage=asked.delta(0.0),
        false_positives=false_positives,
        true_positives=caught,
        prior=prior,
        error=asked.error(prior),
        predictive_value=_predictive_value(caught, false_positives, prior),
        event=event,
        adjacency=Adjacency(adjacency),
        unit=unit,
        method=method,
    )


def attack_advantage(
    *, event: Event, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE, method: str = "pld"
) -> float:
    """Most by which true positives can exceed false positives: total variation, `δ(0)`.

    Arguments as in `attack_risk`.

    Source: Kulynych et al. 2024 (arXiv 2407.02191), proposition 3.1.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> round(attack_advantage(event=Gaussian(noise_multiplier=1.0)), 4)
    0.3829
    """
    return _Attacked(event, adjacency, method).delta(0.0)


def true_positive_rate(
    *,
    event: Event,
    false_positives: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    method: str = "pld",
) -> float:
    """The largest true-positive rate at a false-positive rate α, from above.

    The least of `e^ε·α + δ(ε)` and `1 − e^−ε·(1 − δ(ε) − α)` over the ε searched, each of which
    is a bound; `Φ(Φ⁻¹(α) + μ)` for unsampled Gaussians. Arguments as in `attack_risk`.

    Raises:
        ValueError: α is outside [0, 1], or `method` cannot price `event`.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.12.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> round(true_positive_rate(event=Gaussian(noise_multiplier=1.0), false_positives=0.05), 4)
    0.2595
    """
    return _Attacked(event, adjacency, method).detection(false_positives)


def bayes_error(
    *,
    event: Event,
    prior: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    method: str = "pld",
) -> float:
    """Bayes risk: the least average error of any attack on a unit present with chance `prior`.

    ``m·(1 − δ(ln((1 − m)/m)))`` with m = min(π, 1 − π), the error without any release.
    Arguments as in `attack_risk`.

    Raises:
        ValueError: π is outside [0, 1], or `method` cannot price `event`.

    Source: Kulynych et al. 2024 (arXiv 2407.02191); Barthe & Olmedo 2013, for δ as the largest
    value of `P(S) − e^ε·Q(S)`.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> round(bayes_error(event=Gaussian(noise_multiplier=1.0), prior=0.5), 4)
    0.3085
    """
    return _Attacked(event, adjacency, method).error(prior)


def positive_predictive_value(
    *,
    event: Event,
    false_positives: float,
    prior: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    method: str = "pld",
) -> float:
    """The largest share of an attack's accusations that are right, at a false-positive rate α.

    ``π·τ / (π·τ + (1 − π)·α)`` with τ the `true_positive_rate` at α. At α = 0 it is 1 wherever
    τ > 0: an attack that never accuses wrongly. Arguments as in `attack_risk`.

    Raises:
        ValueError: α or π is outside [0, 1], or `method` cannot price `event`.

    Source: Jayaraman, Wang, Knipmeyer, Gu & Evans 2020 (arXiv 2005.10881).

    >>> from dpacc_accounting.events.event import Gaussian
    >>> once = Gaussian(noise_multiplier=1.0)
    >>> round(positive_predictive_value(event=once, false_positives=0.01, prior=0.1), 4)
    0.5065
    """
    false_positives = require_rate("false_positives", false_positives)
    caught = _Attacked(event, adjacency, method).detection(false_positives)
    return _predictive_value(caught, false_positives, prior)


@dataclass(frozen=True)
class _Attacked:
    """An event as its attackers meet it; each δ(ε) is priced once."""

    event: Event
    adjacency: Adjacency
    method: str
    known: dict[float, float] = field(default_factory=dict)

    def delta(self, epsilon: float) -> float:
        if epsilon not in self.known:
            self.known[epsilon] = price_delta(
                event=self.event, epsilon=epsilon, adjacency=self.adjacency, method=self.method
            ).delta
        return self.known[epsilon]

    def detection(self, false_positives: float) -> float:
        false_positives = require_rate("false_positives", false_positives)
        if (mu := exact_mu(event=self.event, adjacency=self.adjacency)) is not None:
            return gaussian_power(mu=mu, false_positives=false_positives)

        def bound(log_slope: float) -> float:
            # δ at a negative ε is that of the mirrored attack, which swaps the two datasets.
            delta = self.delta(abs(log_slope))
            mirrored = 1 - math.exp(-abs(log_slope)) * (1 - delta - false_positives)
            return mirrored if log_slope < 0 else math.exp(log_slope) * false_positives + delta

        advantage = self.delta(0.0)
        if advantage in (0.0, 1.0) or false_positives in (0.0, 1.0):
            return _at_the_ends(advantage, false_positives, self.delta)
        mu = 2 * float(ndtri((1 + advantage) / 2))
        start = -mu * float(ndtri(false_positives)) - mu * mu / 2
        found = lowest(function=bound, start=start, step=mu / 2, finest=_FINEST_STEP * mu)[1]
        return min(found, false_positives + advantage, 1.0)

    def error(self, prior: float) -> float:
        prior = require_rate("prior", prior)
        rarer = min(prior, 1 - prior)
        if rarer == 0:
            return 0.0
        odds = math.log1p(-rarer) - math.log(rarer)
        return rarer * (1 - self.delta(max(odds, 0.0)))


def _at_the_ends(
    advantage: float, false_positives: float, priced: Callable[[float], float]
) -> float:
    """The true-positive rate where it is 0, 1, or no more than a guess."""
    if advantage == 0 or false_positives == 1:
        return false_positives
    if advantage == 1:
        return 1.0
    # Normal noise has no event that only one of two datasets allows, but a bound has some δ.
    return min(advantage, *(priced(float(epsilon)) for epsilon in (1, 4, 16, 64)))


def lowest(
    *, function: Callable[[float], float], start: float, step: float, finest: float
) -> tuple[float, float]:
    """(x, f(x)) near the minimum of a function with a single valley.

    >>> x, value = lowest(function=lambda x: (x - 3) ** 2, start=1.0, step=1.0, finest=0.1)
    >>> abs(x - 3) < 0.1
    True
    """
    place, best = start, function(start)
    while step > finest:
        moved = False
        for near in (place + step, place - step):
            if (value := function(near)) < best:
                place, best, moved = near, value, True
                break
        step = step * 2 if moved else step / 2
    return place, best


def _predictive_value(caught: float, false_positives: float, prior: float) -> float:
    prior = require_rate("prior", prior)
    right, wrong = prior * caught, (1 - prior) * false_positives
    return right / (right + wrong) if right else 0.0
