"""What an attacker's guesses prove: a lower bound on ε from one run with many canaries.

Each of m canaries is put into the training data by a fair coin of its own. Whoever sees what the
run released guesses some of the coins. A private mechanism allows only so many right guesses, so
that more of them refute its claim. The number of guesses must not depend on the coins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom

from dpacc_accounting.events.arguments import whole
from dpacc_accounting.events.fields import real, shown
from dpacc_accounting.gaussian import gaussian_epsilon

ErrorCurve = Callable[[float], float]
"""f(α): the least false-negative rate of any attack with false-positive rate α; symmetric."""

_MOST_EPSILON = 60.0
_MOST_MU = 60.0
_HALVINGS = 40
_GUESSING_SHARES = 24


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How well an attacker guessed which canaries were in the data.

    Args:
        correct: guesses that were right.
        made: guesses in all, fixed before the coins were seen; the other canaries are passed over.
        canaries: m, how many coins were flipped.

    Raises:
        ValueError: they contradict one another.
    """

    correct: int
    made: int
    canaries: int

    def __post_init__(self) -> None:
        for name in ("correct", "made", "canaries"):
            object.__setattr__(self, name, whole(name, getattr(self, name), least=0))
        if not 0 <= self.correct <= self.made <= self.canaries or self.made < 1:
            raise ValueError(
                f"correct={self.correct}, made={self.made}, canaries={self.canaries} must ascend, "
                "with at least one guess"
            )


def chance_of_guesses(*, guesses: Guesses, epsilon: float, delta: float) -> float:
    """The most probable that so many right guesses can be against an (ε, δ)-private mechanism.

    ``P(W >= v) + 2·m·δ · max_{1<=i<=v} P(v − i <= W < v) / i``
    with W ~ Binomial(r, e^ε/(1 + e^ε)), v right guesses of r, and m canaries; at most 1.

    Source: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), theorem 5.2.

    >>> round(chance_of_guesses(guesses=Guesses(correct=9, made=10, canaries=10),
    ...                         epsilon=0.0, delta=0.0), 4)
    0.0107
    """
    right, made = guesses.correct, guesses.made
    each = 1 / (1 + math.exp(-epsilon))
    chance = float(binom.sf(right - 1, made, each))
    if delta > 0:
        below, steepest = 0.0, 0.0
        probabilities = binom.pmf(range(right), made, each).tolist()
        for distance, probability in enumerate(reversed(probabilities), start=1):
            below += probability
            steepest = max(steepest, below / distance)
        chance += 2 * guesses.canaries * delta * steepest
    return min(chance, 1.0)


def refutes(*, guesses: Guesses, curve: ErrorCurve, confidence: float) -> bool:
    """Whether so many right guesses are less probable than 1 − confidence against the curve.

    Let p_i be the chance of exactly i right of r guesses about m canaries. Flipping one canary's
    coin turns a right guess into a wrong one and i into i − 1, so for every c

    ``Σ_{i>=c} i·p_i/m <= 1 − f( Σ_{i>=c} (r − i + 1)·p_{i−1}/m )``.

    The least probabilities p_{c−1}, p_{c−2}, … that allow P(at least c right) = 1 − confidence
    follow one after the other; when they add up to more than one, the curve is refuted.

    Args:
        guesses: what the attacker achieved.
        curve: f of the claim, symmetric, never above the truth.
        confidence: 1 − β, in (0, 1).

    Source: Mahloujifar, Melis & Chaudhuri 2024 (arXiv 2410.22235), theorem 3.2 and algorithm 3.

    >>> perfect = Guesses(correct=20, made=20, canaries=20)
    >>> refutes(guesses=perfect, curve=gaussian_curve(mu=0.5), confidence=0.95)
    True
    >>> refutes(guesses=perfect, curve=gaussian_curve(mu=9.0), confidence=0.95)
    False
    """
    right, made, canaries = guesses.correct, guesses.made, guesses.canaries
    share = made / canaries
    # Tails of Σ i·p_i/m and Σ (r − i)·p_i/m, from i = right guesses downwards.
    hits = (1 - _checked(confidence)) * right / canaries
    misses = (1 - confidence) * (made - right) / canaries
    for count in range(right - 1, -1, -1):
        if hits + misses >= share:
            return True
        # 1 − f(x) = y has the solution x = f(1 − y), because f is its own inverse.
        more = max(curve(1 - hits), misses)
        hits += count / (made - count) * (more - misses)
        misses = more
    return hits + misses >= share


def gaussian_curve(*, mu: float) -> ErrorCurve:
    """f of μ-Gaussian differential privacy: Φ(Φ⁻¹(1 − α) − μ).

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), equation 6.

    >>> round(gaussian_curve(mu=1.0)(0.05), 4)
    0.7405
    """
    return lambda alpha: float(ndtr(-float(ndtri(alpha)) - mu))


def approximate_curve(*, epsilon: float, delta: float) -> ErrorCurve:
    """f of (ε, δ)-differential privacy: max(0, 1 − δ − e^ε·α, e^−ε·(1 − δ − α)).

    Source: Wasserman & Zhou 2010; Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.5.

    >>> round(approximate_curve(epsilon=1.0, delta=0.0)(0.5), 4)
    0.1839
    """
    growth = math.exp(epsilon)
    return lambda alpha: max(0.0, 1 - delta - growth * alpha, (1 - delta - alpha) / growth)


def one_run_epsilon(*, guesses: Guesses, delta: float, confidence: float = 0.95) -> float:
    """The largest ε that the guesses rule out at δ, whatever the mechanism is; 0 if none.

    With probability at least `confidence`, a mechanism that is (ε, δ)-private for adding or
    removing one canary yields a value of at most ε. The two bounds (`chance_of_guesses`,
    `refutes`) share the error probability evenly, and the better one is returned.

    Args:
        guesses: how many there were, and how many of them right.
        delta: δ in [0, 1).
        confidence: in (0, 1), over the canaries' coins.

    Raises:
        ValueError: δ or the confidence is out of range.

    Source: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846); Mahloujifar, Melis & Chaudhuri 2024
    (arXiv 2410.22235).

    >>> round(one_run_epsilon(guesses=Guesses(correct=98, made=100, canaries=1000), delta=1e-5), 2)
    2.57
    """
    _require_guesses(guesses)
    delta = real(delta, name="delta")
    if not 0 <= delta < 1:
        raise ValueError(f"delta={delta} is outside [0, 1)")
    each = 1 - (1 - _checked(confidence)) / 2

    def improbable(epsilon: float) -> bool:
        return chance_of_guesses(guesses=guesses, epsilon=epsilon, delta=delta) < 1 - each

    def refuted(epsilon: float) -> bool:
        curve = approximate_curve(epsilon=epsilon, delta=delta)
        return refutes(guesses=guesses, curve=curve, confidence=each)

    return max(_last_true(improbable, _MOST_EPSILON), _last_true(refuted, _MOST_EPSILON))


def one_run_mu(*, guesses: Guesses, confidence: float = 0.95) -> float:
    """The largest μ for which the guesses rule out μ-Gaussian differential privacy; 0 if none.

    Much closer to the truth than `one_run_epsilon` where the claim is Gaussian, because the claim
    says more. `gaussian_epsilon(mu=…, delta=…)` puts it beside an ε. Arguments as in
    `one_run_epsilon`.

    Source: Mahloujifar, Melis & Chaudhuri 2024 (arXiv 2410.22235), with the trade-off function of
    Dong, Roth & Su 2019 (arXiv 1905.02383).

    >>> round(one_run_mu(guesses=Guesses(correct=98, made=100, canaries=1000)), 2)
    0.97
    """
    _require_guesses(guesses)
    confidence = _checked(confidence)

    def refuted(mu: float) -> bool:
        return refutes(guesses=guesses, curve=gaussian_curve(mu=mu), confidence=confidence)

    return _last_true(refuted, _MOST_MU)


def independent_mu(
    *, missed: int, present: int, false_alarms: int, absent: int, confidence: float = 0.95
) -> float:
    """A lower bound on μ from canaries whose scores are known to be independent; 0 if none.

    ``Φ⁻¹(1 − ᾱ) − Φ⁻¹(β̄)`` with ᾱ, β̄ the upper Clopper–Pearson limits of the false-positive and
    false-negative rates, each at (1 − confidence)/2. The threshold must not depend on the scores.

    Much closer than one-run bounds, which allow for any dependence: orthogonal canaries in the
    gradients of one Gaussian mechanism have independent scores; canaries in text do not.

    Args:
        missed: present canaries that were taken for absent.
        present: how many were present.
        false_alarms: absent canaries that were taken for present.
        absent: how many were absent.
        confidence: 1 − β.

    Source: Nasr et al. 2023 (arXiv 2302.07956), section 4.

    >>> round(independent_mu(missed=309, present=1000, false_alarms=309, absent=1000), 2)
    0.83
    """
    each = 1 - (1 - _checked(confidence)) / 2
    alarms = clopper_pearson(wrong=false_alarms, tried=absent, confidence=each)
    misses = clopper_pearson(wrong=missed, tried=present, confidence=each)
    return max(0.0, float(-ndtri(alarms) - ndtri(misses)))


def clopper_pearson(*, wrong: int, tried: int, confidence: float) -> float:
    """The upper limit of an error rate that was seen `wrong` times in `tried` trials.

    Source: Clopper & Pearson 1934, Biometrika 26, 404-413.

    >>> round(clopper_pearson(wrong=0, tried=100, confidence=0.95), 4)
    0.0295
    """
    if wrong >= tried:
        return 1.0
    return float(beta.ppf(_checked(confidence), wrong + 1, tried - wrong))


def best_number_of_guesses(*, canaries: int, mu: float, confidence: float = 0.95) -> int:
    """How many canaries to guess, half of them as present, for the largest `one_run_mu`.

    Computed for scores that are Gaussian with distance μ between present and absent canaries. It
    depends on the claim and not on the scores, so that it costs no confidence.

    Args:
        canaries: m, at least 2.
        mu: how far apart the claim would allow the scores to be, in standard deviations.
        confidence: that of the audit.

    >>> best_number_of_guesses(canaries=1000, mu=1.0) < 1000
    True
    """
    if canaries < 2:
        raise ValueError(f"canaries={canaries} is too few to tell any apart; use at least 2")
    shares = (canaries * 0.75**power for power in range(_GUESSING_SHARES))
    tried = sorted({max(1, round(share / 2)) * 2 for share in shares})
    tried = [made for made in tried if made <= canaries]

    def bound(made: int) -> tuple[float, int]:
        right = round(made * _accuracy(made / canaries, mu))
        guesses = Guesses(correct=right, made=made, canaries=canaries)
        # Where nothing is to be expected, many guesses still catch a gross violation.
        return one_run_mu(guesses=guesses, confidence=confidence), made

    return max(tried, key=bound)


def gaussian_equivalent_epsilon(*, guesses: Guesses, delta: float, confidence: float) -> float:
    """`one_run_mu` as the ε that a Gaussian mechanism of that μ has at δ.

    >>> guesses = Guesses(correct=98, made=100, canaries=1000)
    >>> round(gaussian_equivalent_epsilon(guesses=guesses, delta=1e-5, confidence=0.95), 1)
    4.2
    """
    mu = one_run_mu(guesses=guesses, confidence=confidence)
    return gaussian_epsilon(mu=mu, delta=delta) if mu > 0 else 0.0


def _accuracy(share: float, mu: float) -> float:
    """Expected share of right guesses when `share` of the canaries, the most extreme, are guessed.

    The upper threshold t has (Φ(−t) + Φ(μ − t))/2 = share/2.
    """
    low, high = -10.0, mu + 10.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = float(ndtr(-middle) + ndtr(mu - middle))
        low, high = (middle, high) if above > share else (low, middle)
    return float(ndtr(mu - low)) / float(ndtr(-low) + ndtr(mu - low))


def _last_true(holds: Callable[[float], bool], most: float) -> float:
    """A value for which `holds` is true, next to one for which it is not; 0 if not even there."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and holds(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _require_guesses(value: Guesses) -> None:
    if not isinstance(value, Guesses):
        raise ValueError(f"guesses={shown(value)} are no Guesses(correct=, made=, canaries=)")


def _checked(value: float) -> float:
    confidence = real(value, name="confidence")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1")
    return confidence
