"""What is to be tested: a claimed ε, and everything that the claim says about an attacker."""

from __future__ import annotations

from dataclasses import dataclass

from dpacc_accounting import Adjacency, Event, Guarantee, epsilon, tradeoff_curve
from dpacc_accounting.attacks.one_run_audit import ErrorCurve, approximate_curve
from dpacc_accounting.gaussian import gaussian_mu

from dpacc.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A guarantee for adding or removing one canary, and the errors it forces on attackers.

    Args:
        guarantee: (ε, δ), and what it assumes.
        curve: f(α), the least false-negative rate at a false-positive rate; symmetric.
        mu: about how many standard deviations apart the claim lets scores be; it only decides how
            many canaries are guessed.
    """

    guarantee: Guarantee
    curve: ErrorCurve
    mu: float

    @classmethod
    def of_event(cls, *, event: Event, delta: float, unit: str = "example") -> Claim:
        """All that an event promises: its whole trade-off curve, which is more than one (ε, δ).

        Raises:
            ValueError: the event cannot be priced.
            ConfigurationError: it promises nothing.

        >>> from dpacc_accounting import Gaussian
        >>> claim = Claim.of_event(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
        >>> round(claim.guarantee.epsilon, 3), claim.mu
        (4.377, 1.0)
        """
        guarantee = epsilon(event=event, delta=delta, unit=unit)
        _require_finite(guarantee)
        curve = tradeoff_curve(event=event, unit=unit)

        def misses(alpha: float) -> float:
            return curve.false_negatives(false_positives=min(max(alpha, 0.0), 1.0))

        return cls(guarantee=guarantee, curve=misses, mu=_mu(guarantee))

    @classmethod
    def of_epsilon(cls, *, epsilon: float, delta: float, unit: str = "example") -> Claim:
        """A bare (ε, δ), by whatever mechanism.

        Raises:
            ConfigurationError: ε or δ is out of range.
        """
        if not epsilon > 0 or not 0 < delta < 1:
            raise ConfigurationError(
                f"epsilon={epsilon}, delta={delta}: a claim needs ε above 0 and δ between 0 and 1"
            )
        guarantee = Guarantee(
            epsilon=epsilon,
            delta=delta,
            adjacency=Adjacency.ADD_OR_REMOVE,
            unit=unit,
            method="as claimed",
            slack=epsilon,
        )
        _require_finite(guarantee)
        curve = approximate_curve(epsilon=epsilon, delta=delta)
        return cls(guarantee=guarantee, curve=curve, mu=_mu(guarantee))


def _mu(guarantee: Guarantee) -> float:
    """The Gaussian mechanism of the same (ε, δ)."""
    return round(gaussian_mu(epsilon=guarantee.epsilon, delta=guarantee.delta), 9)


def _require_finite(guarantee: Guarantee) -> None:
    if not guarantee.epsilon < 500:
        raise ConfigurationError(
            f"the claimed ε is {guarantee.epsilon:g}, which promises nothing that could be tested"
        )
