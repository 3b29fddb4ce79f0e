"""What a guarantee allows an attacker: bounds on telling two neighbouring datasets apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri, ndtri_exp

from dpacc_accounting.bracketing import last_negative
from dpacc_accounting.events.arguments import an_event, require_rate, whole
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.flattening import releases
from dpacc_accounting.gaussian import gaussian_delta
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.certified_bounds import joint_mu
from dpacc_accounting.pricing.price import delta as price_delta
from dpacc_accounting.pricing.price import epsilon as price_epsilon

# A sampled event's curve is followed down to this δ.
_LAST_DELTA = 1e-9


@dataclass(frozen=True, kw_only=True)
class TradeoffCurve:
    """The errors that every attack must make: false negatives against false positives.

    No test of "was this unit in the data" has a false-positive rate α and a false-negative rate
    below f(α). f is symmetric, and covers adding a unit as well as removing one.

    Args:
        points: (ε, certified δ(ε)), ascending in ε; each bounds f by two straight lines.
        exact_mu: μ where the event is exactly μ-Gaussian; None where sampling made it another.
        event: what was released, and so how it was sampled.
        adjacency: which datasets are neighbours.
        unit: whose data one unit is.
        method: how δ(ε) was priced.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.12.
    """

    points: tuple[tuple[float, float], ...]
    exact_mu: float | None
    event: Event
    adjacency: Adjacency
    unit: str
    method: str

    def false_negatives(self, *, false_positives: float) -> float:
        """f(α): no attack with this false-positive rate misses less often. Dimensionless.

        >>> from dpacc_accounting.events.event import Gaussian
        >>> curve = tradeoff_curve(event=Gaussian(noise_multiplier=1.0))
        >>> round(curve.false_negatives(false_positives=0.05), 4)
        0.7405
        """
        false_positives = require_rate("false_positives", false_positives)
        if self.exact_mu is not None:
            return 1 - gaussian_power(mu=self.exact_mu, false_positives=false_positives)
        rest = 1 - false_positives
        steep = max(1 - d - false_positives * math.exp(min(e, 700.0)) for e, d in self.points)
        flat = max(math.exp(-e) * (rest - d) for e, d in self.points)
        return max(steep, flat, 0.0)

    def gaussian_equivalent(self) -> tuple[float, float]:
        """(μ, β): δ(ε) <= δ_μ(ε) + β at every ε >= 0, with δ_μ that of μ-GDP.

        β is 0 for Gaussians. A sampled event's far tail is as heavy as without sampling, so that
        μ-GDP alone says nothing of use there: β is δ at the last point, about 1e-9.
        μ is an upper bound; a curve of more points has a smaller one, above all where μ > 5.

        Source: Dong, Roth & Su 2019 (arXiv 1905.02383), corollary 2.13; Gomez et al. 2025
        (arXiv 2503.10945) for the slack.

        >>> from dpacc_accounting.events.event import Gaussian
        >>> tradeoff_curve(event=Gaussian(noise_multiplier=4.0)).gaussian_equivalent()
        (0.25, 0.0)
        """
        if self.exact_mu is not None:
            return self.exact_mu, 0.0
        beyond = self.points[-1][1]
        if beyond >= 1:
            return math.inf, 0.0
        high = 1.0
        while not self._below_gaussian(high):
            high *= 2
        return last_negative(
            function=lambda mu: 1.0 if self._below_gaussian(mu) else -1.0,
            low=0.0,
            high=high,
            tolerance=1e-9,
        )[1], beyond

    def _below_gaussian(self, mu: float) -> bool:
        """Whether every chord of δ against e^ε lies below the convex δ_μ: so then does δ."""
        beyond = self.points[-1][1]
        ends = zip(self.points, self.points[1:], strict=False)
        return mu > 0 and all(_chord_below(mu, beyond, left, right) for left, right in ends)


def tradeoff_curve(
    *,
    event: Event,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    unit: str = "example",
    method: str = "pld",
    points: int = 33,
) -> TradeoffCurve:
    """The trade-off curve of `event`, certified from below.

    ``f(α) = max_i max(0, 1 − δ(ε_i) − e^{ε_i} α, e^{−ε_i} (1 − δ(ε_i) − α))`` over `points`
    values ε_i from 0 to where δ is about 1e-9; exact for unsampled Gaussians.

    Args:
        event: what is released about the same data.
        adjacency: which datasets the attacker must tell apart.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian", as in `epsilon`.
        points: how many values of ε, at least 2. Each costs one pricing.

    Raises:
        ValueError: an argument is out of range, or `method` cannot price `event`.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.12.

    >>> from dpacc_accounting.events.event import Gaussian, PoissonSampled
    >>> once = PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.0))
    >>> curve = tradeoff_curve(event=once)
    >>> round(1 - curve.false_negatives(false_positives=0.01), 3)
    0.018
    """
    points = whole("points", points, least=2)

    def priced(epsilon: float) -> float:
        return price_delta(
            event=event, epsilon=epsilon, adjacency=adjacency, unit=unit, method=method
        ).delta

    last = price_epsilon(
        event=event, delta=_LAST_DELTA, adjacency=adjacency, unit=unit, method=method
    ).epsilon
    top = last if 0 < last < math.inf else 1.0
    # Closer together near 0, where most false-positive rates have their line.
    grid = [top * (k / (points - 1)) ** 1.5 for k in range(points)]
    return TradeoffCurve(
        points=tuple((each, priced(each)) for each in grid),
        exact_mu=exact_mu(event=event, adjacency=adjacency),
        event=event,
        adjacency=Adjacency(adjacency),
        unit=unit,
        method=method,
    )


def detection_bound(*, guarantee: Guarantee, false_alarms: float) -> float:
    """The true-positive rate of any attack at a false-positive rate α = ``false_alarms``.

    ``min(1, e^ε·α + δ, 1 − e^−ε·(1 − δ − α))`` (Kairouz, Oh & Viswanath, arXiv 1311.0776).

    >>> from dpacc_accounting.guarantee import Adjacency
    >>> g = Guarantee(epsilon=1.0, delta=0.0, adjacency=Adjacency.ADD_OR_REMOVE,
    ...               unit="example", method="pld", slack=0.0)
    >>> round(detection_bound(guarantee=g, false_alarms=0.01), 5)
    0.02718
    """
    return detection_within(guarantee.epsilon, guarantee.delta, false_alarms)


def detection_within(epsilon: float, delta: float, false_alarms: float) -> float:
    """`detection_bound` of a bare (ε, δ).

    >>> detection_within(0.0, 0.1, 0.2)
    0.30000000000000004
    """
    shrink = math.exp(-epsilon)
    mirrored = 1 - shrink * max(0.0, 1 - delta - false_alarms)
    return min(1.0, mirrored, false_alarms / shrink + delta if shrink else 1.0)


def advantage_bound(*, guarantee: Guarantee) -> float:
    """How far an attack's true-positive rate can exceed its false-positive rate.

    ``(e^ε − 1 + 2δ) / (e^ε + 1)`` (Humphries et al., arXiv 2010.12112).

    >>> from dpacc_accounting.guarantee import Adjacency
    >>> g = Guarantee(epsilon=1.0, delta=0.0, adjacency=Adjacency.ADD_OR_REMOVE,
    ...               unit="example", method="pld", slack=0.0)
    >>> round(advantage_bound(guarantee=g), 5)
    0.46212
    """
    shrink = math.exp(-guarantee.epsilon)
    return min(1.0, (1 - shrink + 2 * guarantee.delta * shrink) / (1 + shrink))


def exact_mu(*, event: Event, adjacency: Adjacency) -> float | None:
    """μ of an event that is exactly a Gaussian mechanism; None of any other.

    ``sqrt(Σ (s/σ_i)²)``, s = 1 (add-or-remove) or 2 (replace-one), all of them unsampled.

    >>> from dpacc_accounting.events.event import Gaussian, Repeated
    >>> four = Repeated(event=Gaussian(noise_multiplier=2.0), times=4)
    >>> exact_mu(event=four, adjacency=Adjacency.ADD_OR_REMOVE)
    1.0
    """
    try:
        counts = releases(event=an_event(event))
    except ValueError:
        return None
    if any(release.probability < 1 or release.noise_multiplier == 0 for release in counts):
        return None
    return joint_mu(counts=counts, adjacency=Adjacency(adjacency))


def gaussian_power(*, mu: float, false_positives: float) -> float:
    """The best attack's true-positive rate against μ-GDP: `Φ(Φ⁻¹(α) + μ)`.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), equation 6.

    >>> round(gaussian_power(mu=1.0, false_positives=0.05), 4)
    0.2595
    """
    return float(ndtr(ndtri(false_positives) + mu))


def _chord_below(
    mu: float, beyond: float, left: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Whether the straight line in e^ε between two points lies below δ_μ + `beyond`.

    δ_μ is convex in e^ε, so that the line is closest where both slopes agree.
    """
    (low, high_delta), (high, low_delta) = left, right
    width, drop = high - low, max(high_delta - low_delta, 0.0)
    places = [low, high]
    if drop > 0:
        log_slope = math.log(drop) - high - math.log(-math.expm1(-width))
        touching = -mu * (mu / 2 + float(ndtri_exp(min(log_slope, 0.0))))
        places.append(min(max(touching, low), high))
    return all(
        high_delta - drop * _share(place - low, width)
        <= gaussian_delta(mu=mu, epsilon=place) + beyond
        for place in places
    )


def _share(part: float, whole: float) -> float:
    """`(e^part − 1) / (e^whole − 1)` without overflow."""
    return math.exp(part - whole) * math.expm1(-part) / math.expm1(-whole)
