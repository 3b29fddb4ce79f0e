"""What an event claims outright: (ε₀, δ₀), nearly always with δ₀ = 0, where there is such a claim.

Whatever is (ε₀, δ₀)-private is dominated by a mechanism that reveals all with chance δ₀ and else
answers by randomised response (Kairouz, Oh & Viswanath 2015, arXiv 1311.0776), so that

    δ(ε) <= δ₀ + (1 − δ₀)·(e^ε₀ − e^ε)/(1 + e^ε₀), δ₀ at ε >= ε₀

and no grid can say otherwise. Both add up over a composition; a sample of share q draws them
together to ln(1 + q(e^ε₀ − 1)) and q·δ₀; a mixture, its coin revealed, has its events' largest ε₀
and mean δ₀.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dpacc_accounting.events.event import (
    Event,
    ExponentialMechanism,
    Laplace,
    Mixture,
    PoissonSampled,
    SampledWithoutReplacement,
    Selected,
)
from dpacc_accounting.events.finite_mechanisms import (
    ApproximateDP,
    DiscreteLaplace,
    PermuteAndFlip,
    RandomizedResponse,
    TruncatedDiscreteGaussian,
)
from dpacc_accounting.events.flattening import pieces
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.pld.amplification import coin_is_hidden
from dpacc_accounting.pld.finite_losses import outcomes
from dpacc_accounting.selection import selection_cost

# Squares of less leave the range of a double.
_LEAST_SIGMA = 1e-100
# What a few roundings can do, far above what is observed.
_ROUNDING = 1 + 1e-14


@dataclass(frozen=True)
class Claim:
    """(ε₀, δ₀), from above; infinite ε₀ where nothing is claimed."""

    epsilon: float
    delta: float = 0.0

    def delta_at(self, *, epsilon: float) -> float:
        """The largest δ(ε) that it allows.

        >>> round(Claim(1.0).delta_at(epsilon=0.0), 6), Claim(1.0).delta_at(epsilon=1.0)
        (0.462117, 0.0)
        """
        if epsilon >= self.epsilon:
            return self.delta
        told = -math.expm1(epsilon - self.epsilon) / (1 + math.exp(-self.epsilon)) * _ROUNDING
        return min(self.delta + (1 - self.delta) * told, 1.0)

    def epsilon_at(self, *, delta: float) -> float:
        """The largest ε(δ) that it allows: `ln(e^ε₀ − δ′·(1 + e^ε₀))`, δ′ = (δ − δ₀)/(1 − δ₀).

        >>> round(Claim(1.0).epsilon_at(delta=0.1), 4), Claim(1.0, 0.1).epsilon_at(delta=0.05)
        (0.8529, inf)
        """
        if self.epsilon == math.inf or delta < self.delta:
            return math.inf
        left = (delta - self.delta) / (1 - self.delta) * (1 - 1e-14)
        kept = 1 - left * (1 + math.exp(-self.epsilon)) + 4e-16
        if kept <= 0:
            return 0.0
        most = self.epsilon + math.log(kept) + 1e-14 * (1 + self.epsilon)
        return min(max(most, 0.0), self.epsilon)


NOTHING = Claim(math.inf)


def outright_claim(*, event: Event, adjacency: Adjacency) -> Claim:
    """(ε₀, δ₀) with which `event` is private whatever else is known, from above.

    Source: Dwork & Roth, The Algorithmic Foundations of Differential Privacy, theorem 3.16; Balle,
    Barthe & Gaboardi 2018 (arXiv 1807.01647) for samples; Papernot & Steinke 2022
    (arXiv 2110.03620) for selections.

    >>> from dpacc_accounting import Repeated
    >>> twice = Repeated(event=Laplace(noise_multiplier=2.0), times=2)
    >>> outright_claim(event=twice, adjacency=Adjacency.ADD_OR_REMOVE)
    Claim(epsilon=1.0, delta=0.0)
    """
    gaussians, others = pieces(event=event)
    if gaussians:
        return NOTHING
    parts = [(_single(other, adjacency), n) for other, n in others.items()]
    if any(claim.epsilon == math.inf for claim, _ in parts):
        return NOTHING
    lost = rounded_up(sum((Fraction(claim.delta) * n for claim, n in parts), Fraction(0)))
    total = rounded_up(sum((Fraction(claim.epsilon) * n for claim, n in parts), Fraction(0)))
    return Claim(total, lost) if lost < 1 else NOTHING


def rounded_up(value: Fraction) -> float:
    """The least float that is not below `value`.

    >>> Fraction(rounded_up(Fraction(1, 3))) > Fraction(1, 3), rounded_up(Fraction(1, 2))
    (True, 0.5)
    """
    try:
        near = float(value)
    except OverflowError:
        return math.inf
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def _single(event: Event, adjacency: Adjacency) -> Claim:
    """The claim of one event that is not a composition."""
    replaced = adjacency is Adjacency.REPLACE_ONE
    match event:
        case Laplace(noise_multiplier=scale):
            return Claim(rounded_up(Fraction(2 if replaced else 1) / Fraction(scale)))
        case DiscreteLaplace(decay=decay, sensitivity=most):
            return Claim(rounded_up(Fraction(decay) * most * (2 if replaced else 1)))
        case ExponentialMechanism(epsilon=epsilon) | PermuteAndFlip(epsilon=epsilon):
            return Claim(epsilon)
        case ApproximateDP(epsilon=epsilon, delta=delta):
            return Claim(epsilon, delta) if delta < 1 else NOTHING
        case RandomizedResponse(noise=noise, options=options):
            return Claim(math.log1p(options * (1 - noise) / noise) * _ROUNDING)
        case TruncatedDiscreteGaussian(sigma=sigma) if sigma >= _LEAST_SIGMA:
            losses, _, lost = outcomes(mechanism=event, adjacency=adjacency)
            largest = max(float(losses.max()), 0.0) * (1 + 1e-12)
            return Claim(largest, lost * (1 + 1e-12)) if lost < 1 else NOTHING
        case PoissonSampled(probability=q, event=inner):
            hidden = coin_is_hidden(event=inner, adjacency=adjacency)
            return _sampled(q, outright_claim(event=inner, adjacency=adjacency), hidden=hidden)
        case SampledWithoutReplacement(event=inner):
            share = event.sample_size / event.dataset_size
            hidden = adjacency is not Adjacency.ZERO_OUT
            return _sampled(share, outright_claim(event=inner, adjacency=adjacency), hidden=hidden)
        case Mixture():
            return _mixed(event, adjacency)
        case Selected(event=inner):
            return _selected(event, outright_claim(event=inner, adjacency=adjacency))
    return NOTHING


def _sampled(share: float, whole: Claim, *, hidden: bool) -> Claim:
    """`ln(1 + q(e^ε₀ − 1))`, not above ε₀: also the most by which an addition is noticed.

    Under replace-one a Poisson sample's output without the unit need not lie between the other
    two: there the coin counts as seen. So does it under zero-out for a batch of fixed size, where
    another unit takes the place, and for what is no sum.
    """
    lost = min(share * whole.delta * _ROUNDING, 1.0)
    if whole.epsilon > 700 or not hidden:
        return Claim(whole.epsilon, lost)
    grown = math.log1p(share * math.expm1(whole.epsilon)) * _ROUNDING
    return Claim(min(grown, whole.epsilon), lost)


def _mixed(event: Mixture, adjacency: Adjacency) -> Claim:
    total = math.fsum(event.weights)
    likely = [
        (weight / total, outright_claim(event=part, adjacency=adjacency))
        for weight, part in zip(event.weights, event.events, strict=True)
        if weight > 0
    ]
    lost = math.fsum(weight * claim.delta for weight, claim in likely) * _ROUNDING
    return Claim(max(claim.epsilon for _, claim in likely), lost)


def _selected(event: Selected, once: Claim) -> Claim:
    """A run's ε₀ and the price of choosing, of pure runs."""
    if once.epsilon == math.inf or once.delta > 0:
        return NOTHING
    cost = selection_cost(event=event, base_delta=lambda epsilon: once.delta_at(epsilon=epsilon))
    # R <= e^ε₀, which halving the bracket only comes near.
    return Claim((once.epsilon + min(cost, (1 + event.shape) * once.epsilon)) * _ROUNDING)
