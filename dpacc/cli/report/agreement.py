"""A second opinion on ε, by code that shares nothing with what priced it first.

Ours is an interval, [certified lower bound, certified upper bound]. dp-accounting, where it is
installed, gives another: an optimistic and a pessimistic privacy loss distribution. Two correct
intervals overlap. Rényi accountants give upper bounds only, which must not lie below our lower one.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dpacc_accounting import Adjacency, Event, Guarantee, epsilon, to_dp_event
from dpacc_accounting.events.event import (
    AdaptivelyClipped,
    Composed,
    CyclicPoissonSampled,
    DiscreteGaussian,
    Gaussian,
    Laplace,
    PoissonSampled,
    Repeated,
    Selected,
    SeparatedParticipation,
    TruncatedPoissonSampled,
)

from dpacc.errors import errors_alone_from

# What two implementations of one formula may differ by.
_ROUNDING = 1e-6
# Points of dp-accounting's grid that its composed law may need.
_LARGEST_GRID = 1 << 21
# Where e^ε is still a double, and its sums hold.
_LARGEST_EPSILON = 600
# Integers that it tabulates one by one.
_MOST_INTEGERS = 1 << 15


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


@dataclass(frozen=True, kw_only=True)
class Silence:
    """An accountant that cannot price the event, and why."""

    accountant: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A claim beside every other accountant.

    Args:
        comparisons: with those that have an answer, ours by Rényi divergence first.
        silences: those that have none.
    """

    comparisons: tuple[Comparison, ...]
    silences: tuple[Silence, ...]

    @property
    def holds(self) -> bool:
        """Whether all that answered can be right."""
        return all(each.agrees for each in self.comparisons)


def compare(*, event: Event, claim: Guarantee) -> Agreement:
    """`claim` beside every accountant that can price `event`.

    dp-accounting's Rényi accountant is left out under replace-one adjacency, where it
    under-reports the Gaussian mechanism. Its price of a truncated Poisson sample has no lower end.

    Raises:
        ValueError: no other accountant has an answer, such as for random allocation.
    """
    ours = Opinion(
        accountant=f"dpacc {claim.method.upper()}",
        low=max(claim.epsilon - claim.slack, 0.0) if math.isfinite(claim.slack) else 0.0,
        high=claim.epsilon,
    )
    answers, silences = [], []
    for accountant, ask in _accountants(claim).items():
        try:
            with warnings.catch_warnings():
                # dp-accounting's sums overflow on the way to finite answers.
                warnings.simplefilter("ignore", RuntimeWarning)
                answers.append(ask(event, claim))
        except ValueError as unknown:
            silences.append(Silence(accountant=accountant, reason=str(unknown)))
    if not answers:
        raise ValueError(
            "no second opinion: no other accountant at hand can price this event, so that its ε "
            f"rests on dpacc's own alone ({'; '.join(s.reason for s in silences)})"
        )
    return Agreement(
        comparisons=tuple(Comparison(claim=ours, other=other) for other in answers),
        silences=tuple(silences),
    )


def _accountants(claim: Guarantee) -> dict[str, Callable[[Event, Guarantee], Opinion]]:
    found: dict[str, Callable[[Event, Guarantee], Opinion]] = {"dpacc RDP": _own_rdp}
    if dp_accounting_is_installed():
        found["dp-accounting PLD"] = _google_pld
        if claim.adjacency is not Adjacency.REPLACE_ONE:
            found["dp-accounting RDP"] = _google_rdp
    return found


def dp_accounting_is_installed() -> bool:
    """Whether dp-accounting can be imported, without importing it."""
    return find_spec("dp_accounting") is not None


def _own_rdp(event: Event, claim: Guarantee) -> Opinion:
    found = epsilon(event=event, delta=claim.delta, adjacency=claim.adjacency, method="rdp")
    return Opinion(accountant="dpacc RDP", low=0.0, high=found.epsilon)


def _google_pld(event: Event, claim: Guarantee) -> Opinion:
    if claim.epsilon > _LARGEST_EPSILON:
        raise ValueError(f"dp-accounting's sums overflow beyond an ε of {_LARGEST_EPSILON}")
    counts = _counted(event)
    step = _grid_step(sum(counts.values()), claim)
    low, high = (_google_epsilon(counts, claim, step, pessimistic=p) for p in (False, True))
    return Opinion(accountant=f"dp-accounting PLD, grid {step:.1g}", low=low, high=high)


def _google_epsilon(
    counts: Counter[Event], claim: Guarantee, step: float, *, pessimistic: bool
) -> float:
    if not pessimistic and any(isinstance(part, TruncatedPoissonSampled) for part in counts):
        return 0.0
    total: Any = None
    for part, times in counts.items():
        law = _google_law(part, claim, step, pessimistic).self_compose(times)
        total = law if total is None else total.compose(law)
    return float(total.get_epsilon_for_delta(claim.delta)) if total else 0.0


def _google_law(event: Event, claim: Guarantee, step: float, pessimistic: bool) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    grid = {"value_discretization_interval": step}
    where = {**grid, "neighboring_relation": _neighbours(claim.adjacency)}
    rounding = {"pessimistic_estimate": pessimistic, "use_connect_dots": pessimistic}
    match event:
        case Gaussian(noise_multiplier=sigma):
            return pld.from_gaussian_mechanism(sigma, **where, **rounding)
        case PoissonSampled(probability=q, event=Gaussian(noise_multiplier=sigma)):
            return pld.from_gaussian_mechanism(sigma, sampling_prob=q, **where, **rounding)
        case TruncatedPoissonSampled(event=Gaussian(noise_multiplier=sigma)):
            return pld.from_truncated_subsampled_gaussian_mechanism(
                dataset_size=event.dataset_size,
                sampling_probability=event.probability,
                truncated_batch_size=event.largest_batch,
                noise_multiplier=sigma,
                **where,
            )
        case Laplace(noise_multiplier=scale) if claim.adjacency is not Adjacency.REPLACE_ONE:
            return pld.from_laplace_mechanism(scale, **grid, **rounding)
        case DiscreteGaussian() if claim.adjacency is not Adjacency.REPLACE_ONE:
            return pld.from_discrete_gaussian_mechanism(**_integers(event), **grid, **rounding)
        case PoissonSampled(probability=q, event=DiscreteGaussian() as inner) if (
            claim.adjacency is not Adjacency.REPLACE_ONE
        ):
            return pld.from_discrete_gaussian_mechanism(
                **_integers(inner), sampling_prob=q, **grid, **rounding
            )
    raise ValueError(f"dp-accounting has no privacy loss distribution of {_named(event)}")


def _integers(event: DiscreteGaussian) -> dict[str, Any]:
    """Its terms, cut so far out that what is cut, an infinite loss in both laws, adds nothing.

    By default dp-accounting cuts 1e-8 a release, which a hundred releases can see.
    """
    reach = math.ceil(16 * event.sigma) + event.sensitivity + 1
    if reach > _MOST_INTEGERS:
        raise ValueError("dp-accounting is not asked about so wide a DiscreteGaussian")
    return {
        "sigma": event.sigma,
        "sensitivity": event.sensitivity,
        "truncation_bound": reach,
    }


def _google_rdp(event: Event, claim: Guarantee) -> Opinion:
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=_neighbours(claim.adjacency))
    for part, times in _counted(event).items():
        foreign = to_dp_event(event=part)
        if not accountant.supports(foreign):
            raise ValueError(f"dp-accounting has no Rényi bound on {_named(part)}")
        # It warns of each order that it leaves out, which makes its bound no less of a bound.
        with errors_alone_from("absl"):
            accountant.compose(foreign, times)
    return Opinion(
        accountant="dp-accounting RDP", low=0.0, high=float(accountant.get_epsilon(claim.delta))
    )


def _neighbours(adjacency: Adjacency) -> Any:
    from dp_accounting.privacy_accountant import NeighboringRelation

    if adjacency is Adjacency.REPLACE_ONE:
        return NeighboringRelation.REPLACE_ONE
    # Zero-out has the pairs of add-or-remove wherever it is asked about.
    return NeighboringRelation.ADD_OR_REMOVE_ONE


def _grid_step(releases: int, claim: Guarantee) -> float:
    """Fine enough to tell ε to a thousandth or so, coarse enough to fit into memory."""
    wanted = max(claim.epsilon, 0.01) / max(20 * math.sqrt(releases), 200)
    needed = 4 * max(claim.epsilon, 1.0) / _LARGEST_GRID
    return max(min(wanted, 1e-3), needed)


def _counted(event: Event) -> Counter[Event]:
    """How often each release is made: the event read anew, not by the code that priced it."""
    match event:
        case AdaptivelyClipped(noise_multiplier=sigma, count_noise=count) if sigma and count:
            joint = (sigma**-2 + (2 * count) ** -2) ** -0.5
            return Counter({Gaussian(noise_multiplier=joint): 1})
        case PoissonSampled(probability=q, event=inner):
            return _sampled(q, _counted(inner))
        case CyclicPoissonSampled(probability=q, groups=groups, steps=steps, event=inner):
            once = _sampled(q, _counted(inner))
            return Counter({kind: n * math.ceil(steps / groups) for kind, n in once.items()})
        case SeparatedParticipation():
            return _separated(event)
        case TruncatedPoissonSampled(probability=q, event=Gaussian()):
            return Counter({event: 1} if q > 0 else {})
        case Gaussian() | DiscreteGaussian() | Laplace() | Selected():
            return Counter({event: 1})
        case Repeated(event=inner, times=times):
            return Counter({kind: n * times for kind, n in _counted(inner).items()})
        case Composed(events=parts):
            return sum((_counted(part) for part in parts), Counter())
    raise ValueError(f"dp-accounting is not asked about {_named(event)}")


def _separated(event: SeparatedParticipation) -> Counter[Event]:
    """One Gaussian, whose sensitivity is found column by column of C."""
    rounds = event.after + event.rounds
    column = [*event.coefficients, *[0.0] * rounds][:rounds]
    for weight, decay in zip(event.weights, event.decays, strict=True):
        for lag in range(1, rounds):
            column[lag] += weight * decay ** (lag - 1)
    moved = [0.0] * rounds
    for start in [*range(0, rounds, event.separation)][: event.participations]:
        for row in range(start, rounds):
            moved[row] += column[row - start]
    length = math.hypot(*moved[event.after :])
    return Counter(
        {Gaussian(noise_multiplier=event.noise_multiplier / length): 1} if length else {}
    )


def _sampled(q: float, inner: Counter[Event]) -> Counter[Event]:
    if q == 0 or not inner:
        return Counter()
    release = next(iter(inner))
    if [*inner.values()] != [1] or not isinstance(release, Gaussian | DiscreteGaussian):
        kinds = ", ".join(sorted({_named(part) for part in inner}))
        raise ValueError(f"dp-accounting is not asked about a Poisson sample of {kinds}")
    return Counter({PoissonSampled(probability=q, event=release): 1})


def _named(event: Event) -> str:
    return type(event).__name__
