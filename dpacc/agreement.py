"""A second opinion on ε, by code that shares nothing with what priced it first.

Ours is an interval, [certified lower bound, certified upper bound]. dp-accounting, where it is
installed, gives another: an optimistic and a pessimistic privacy loss distribution. Two correct
intervals overlap. Rényi accountants give upper bounds only, which must not lie below our lower one.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dpacc_accounting import Adjacency, Event, Guarantee, epsilon
from dpacc_accounting.events import Composed, Gaussian, PoissonSampled, Repeated

# What two implementations of one formula may differ by.
_ROUNDING = 1e-6
# Points of dp-accounting's grid that its composed law may need.
_LARGEST_GRID = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """One accountant's answer: the exact ε lies in [low, high], as far as it knows.

    Args:
        accountant: who says so.
        low: a lower bound on ε, 0 where it has none.
        high: an upper bound on ε.
    """

    accountant: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An opinion beside the claim."""

    claim: Opinion
    other: Opinion

    @property
    def agrees(self) -> bool:
        """Whether both can be right: the intervals overlap."""
        reach = 1 + _ROUNDING
        return self.claim.low <= self.other.high * reach and (
            self.other.low <= self.claim.high * reach
        )

    @property
    def ratio(self) -> float:
        """The claimed upper bound over the other one; below 1, the other is looser."""
        if self.other.high == self.claim.high:
            return 1.0
        return self.claim.high / self.other.high if self.other.high else math.inf

    @property
    def verdict(self) -> str:
        """Who is looser, in words."""
        if not self.agrees:
            return "DISAGREES"
        if abs(self.ratio - 1) < 1e-4:
            return "equal"
        if self.ratio > 1:
            return f"tighter, ×{1 / self.ratio:.4f}"
        return f"looser, ×{1 / self.ratio:.4f}" if self.ratio else "has no bound"


def compare(*, event: Event, claim: Guarantee) -> list[Comparison]:
    """`claim` beside every accountant that can price `event`, ours by Rényi divergence first.

    dp-accounting's Rényi accountant is left out under replace-one adjacency, where it
    under-reports the Gaussian mechanism.

    Raises:
        ValueError: the event holds a mechanism that the others have no name for.
    """
    ours = Opinion(
        accountant=f"dpacc {claim.method.upper()}",
        low=max(claim.epsilon - claim.slack, 0.0) if math.isfinite(claim.slack) else 0.0,
        high=claim.epsilon,
    )
    others = [_own_rdp(event, claim)]
    if dp_accounting_is_installed():
        others += _google(event, claim)
    return [Comparison(claim=ours, other=other) for other in others]


def dp_accounting_is_installed() -> bool:
    """Whether dp-accounting can be imported, without importing it."""
    return find_spec("dp_accounting") is not None


def _own_rdp(event: Event, claim: Guarantee) -> Opinion:
    found = epsilon(event=event, delta=claim.delta, adjacency=claim.adjacency, method="rdp")
    return Opinion(accountant="dpacc RDP", low=0.0, high=found.epsilon)


def _google(event: Event, claim: Guarantee) -> list[Opinion]:
    counts = _counted(event)
    opinions = [_google_pld(counts, claim)]
    if claim.adjacency is Adjacency.ADD_OR_REMOVE:
        opinions.append(_google_rdp(counts, claim))
    return opinions


def _google_pld(counts: Counter[tuple[float, float]], claim: Guarantee) -> Opinion:
    step = _grid_step(sum(counts.values()), claim)
    bounds = [_google_epsilon(counts, claim, step, pessimistic=worst) for worst in (False, True)]
    return Opinion(accountant=f"dp-accounting PLD, grid {step:.1g}", low=bounds[0], high=bounds[1])


def _google_epsilon(
    counts: Counter[tuple[float, float]], claim: Guarantee, step: float, *, pessimistic: bool
) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    neighbours = _neighbours(claim.adjacency)
    total: Any = None
    for (q, sigma), times in counts.items():
        law = pld.from_gaussian_mechanism(
            sigma,
            pessimistic_estimate=pessimistic,
            value_discretization_interval=step,
            sampling_prob=q,
            use_connect_dots=pessimistic,
            neighboring_relation=neighbours,
        ).self_compose(times)
        total = law if total is None else total.compose(law)
    return float(total.get_epsilon_for_delta(claim.delta)) if total else 0.0


def _google_rdp(counts: Counter[tuple[float, float]], claim: Guarantee) -> Opinion:
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=_neighbours(claim.adjacency))
    for (q, sigma), times in counts.items():
        noise = dp_event.GaussianDpEvent(sigma)
        accountant.compose(dp_event.PoissonSampledDpEvent(q, noise) if q < 1 else noise, times)
    return Opinion(
        accountant="dp-accounting RDP", low=0.0, high=float(accountant.get_epsilon(claim.delta))
    )


def _neighbours(adjacency: Adjacency) -> Any:
    from dp_accounting.privacy_accountant import NeighboringRelation

    if adjacency is Adjacency.REPLACE_ONE:
        return NeighboringRelation.REPLACE_ONE
    return NeighboringRelation.ADD_OR_REMOVE_ONE


def _grid_step(releases: int, claim: Guarantee) -> float:
    """Fine enough to tell ε to a thousandth or so, coarse enough to fit into memory."""
    wanted = max(claim.epsilon, 0.01) / max(20 * math.sqrt(releases), 200)
    needed = 4 * max(claim.epsilon, 1.0) / _LARGEST_GRID
    return max(min(wanted, 1e-3), needed)


def _counted(event: Event) -> Counter[tuple[float, float]]:
    """How often each (q, σ) is released: the event read anew, not by the code that priced it."""
    match event:
        case Gaussian(noise_multiplier=sigma):
            return Counter({(1.0, sigma): 1})
        case PoissonSampled(probability=q, event=Gaussian(noise_multiplier=sigma)):
            return Counter({(q, sigma): 1} if q > 0 else {})
        case Repeated(event=inner, times=times):
            return Counter({kind: n * times for kind, n in _counted(inner).items()})
        case Composed(events=parts):
            return sum((_counted(part) for part in parts), Counter())
    raise ValueError(
        f"no second opinion on {type(event).__name__}: compare Poisson-sampled Gaussians only"
    )
