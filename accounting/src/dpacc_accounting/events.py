"""What was run: immutable descriptions of mechanisms and of their compositions.

An event says nothing about what it costs; `dpacc_accounting.epsilon` and
`dpacc_accounting.delta` price it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from dpacc_accounting.event_fields import AnyEvent, count, listed, real, require_event
from dpacc_accounting.finite_mechanisms import (
    ZCDP,
    ApproximateDP,
    DiscreteLaplace,
    FiniteMechanism,
    PermuteAndFlip,
    RandomizedResponse,
)
from dpacc_accounting.mechanisms import (
    DiscreteGaussian,
    ExponentialMechanism,
    Laplace,
    Mechanism,
    Skellam,
)
from dpacc_accounting.quantile import joint_noise_multiplier
from dpacc_accounting.sampled_events import (
    PoissonSampled,
    RandomlyAllocated,
    SampledWithoutReplacement,
    Shuffled,
    TruncatedPoissonSampled,
)

__all__ = [
    "ZCDP",
    "AdaptivelyClipped",
    "ApproximateDP",
    "Composed",
    "DiscreteGaussian",
    "DiscreteLaplace",
    "Event",
    "ExponentialMechanism",
    "Gaussian",
    "Laplace",
    "Mixture",
    "PermuteAndFlip",
    "PoissonSampled",
    "RandomizedResponse",
    "RandomlyAllocated",
    "Repeated",
    "SampledWithoutReplacement",
    "Selected",
    "Shuffled",
    "Skellam",
    "TruncatedPoissonSampled",
]


@dataclass(frozen=True, kw_only=True)
class Gaussian(AnyEvent):
    """One release of a clipped sum with Gaussian noise: `sum + N(0, (noise_multiplier·C)²)`.

    Args:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm C
            (dimensionless). 0 means that nothing protects the sum: its ε is infinite.

    Raises:
        ValueError: σ is negative, NaN or infinite.

    Source: Dwork & Roth, The Algorithmic Foundations of Differential Privacy, appendix A.

    >>> Gaussian(noise_multiplier=1.1)
    Gaussian(noise_multiplier=1.1)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")


@dataclass(frozen=True, kw_only=True)
class AdaptivelyClipped(AnyEvent):
    """One release of a clipped sum, and of how many norms lay below C, from the same batch.

    The count is Σ (b_i − ½), b_i telling whether norm i is below C. Together they are one Gaussian.

    Args:
        noise_multiplier: σ_g, the standard deviation of the noise on the sum divided by C.
        count_noise: σ_b, the standard deviation of the noise on the count.

    Raises:
        ValueError: either is negative, NaN or infinite.

    Source: Andrew, Thakkar, McMahan & Ramaswamy 2019 (arXiv 1905.03871), theorem 1.

    >>> round(AdaptivelyClipped(noise_multiplier=5.0, count_noise=1.875).joint_noise_multiplier, 6)
    3.0
    """

    noise_multiplier: float
    count_noise: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")
        _keep_noise(self, "count_noise")

    @property
    def joint_noise_multiplier(self) -> float:
        """σ = (σ_g⁻² + (2σ_b)⁻²)^(−1/2), of the one Gaussian that both releases are."""
        return joint_noise_multiplier(
            sum_noise_multiplier=self.noise_multiplier, count_noise=self.count_noise
        )


@dataclass(frozen=True, kw_only=True)
class Repeated(AnyEvent):
    """`event`, run `times` times on the same data with fresh randomness (adaptively chosen).

    Args:
        event: what is repeated.
        times: how often, an integer >= 0.

    Raises:
        ValueError: `times` is negative or not an integer, or `event` is not an event.

    >>> Repeated(event=Gaussian(noise_multiplier=1.0), times=10).times
    10
    """

    event: Event
    times: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", count(self.times))
        require_event(self.event, owner="Repeated")


@dataclass(frozen=True, kw_only=True)
class Composed(AnyEvent):
    """Every event of `events`, run on the same data with fresh randomness (adaptively chosen).

    Args:
        events: the parts, in any order; the guarantee does not depend on it.

    Raises:
        ValueError: a part is not an event.

    >>> one = Gaussian(noise_multiplier=1.0)
    >>> len(Composed(events=(one, one)).events)
    2
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", listed(self.events, name="events"))
        for part in self.events:
            require_event(part, owner="Composed")


@dataclass(frozen=True, kw_only=True)
class Mixture(AnyEvent):
    """One of `events`, drawn with `weights` by a coin that nobody but the mechanism sees.

    The coin does not depend on the data. A round that a client joins with a hidden chance c is
    `Mixture(weights=(c, 1 - c), events=(round, Composed(events=())))`.

    Args:
        weights: the chance of each event, >= 0; they add up to 1 and are divided by their sum,
            so that rounding leaves nothing over.
        events: what may run; `Composed(events=())` for nothing.

    Raises:
        ValueError: the weights do not add up to 1 or do not match `events`, or a part is not an
            event.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647), joint convexity of the divergence.

    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> Mixture(weights=(0.25, 0.75), events=(noisy, Composed(events=()))).weights
    (0.25, 0.75)
    """

    weights: tuple[float, ...]
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", listed(self.events, name="events"))
        weights = listed(self.weights, name="weights")
        object.__setattr__(
            self, "weights", tuple(real(w, name="a weight of Mixture") for w in weights)
        )
        for part in self.events:
            require_event(part, owner="Mixture")
        if len(self.weights) != len(self.events):
            raise ValueError(
                f"Mixture has {len(self.weights)} weights for {len(self.events)} events; "
                "give each event its chance"
            )
        if not (min(self.weights, default=-1) >= 0 and abs(math.fsum(self.weights) - 1) <= 1e-9):
            raise ValueError(
                f"weights={self.weights} are not chances >= 0 that add up to 1; for what runs "
                "with chance c, add Composed(events=()) with the weight 1 - c"
            )


@dataclass(frozen=True, kw_only=True)
class Selected(AnyEvent):
    """The best of a random number of runs of `event`: a private search of hyper-parameters.

    How many runs K are made is drawn in secret, without regard to the data; each run may use other
    settings, drawn alike for every run, and must cost no more than `event`. Only the best run is
    released. The scores that say which is best are part of what a run releases: noised, or
    computed from the run's own output and public data.

    Args:
        event: all that one run releases, its score included.
        mean_runs: E[K], at least 1.
        shape: η of the truncated negative binomial law of K: 1 is geometric, 0 logarithmic;
            infinity is the Poisson law, under which K may be 0.

    Raises:
        ValueError: a number is out of range, or `event` is not an event.

    Source: Papernot & Steinke 2022 (arXiv 2110.03620), definition 1.

    >>> Selected(event=Gaussian(noise_multiplier=2.0), mean_runs=10, shape=1).mean_runs
    10.0
    """

    event: Event
    mean_runs: float
    shape: float

    def __post_init__(self) -> None:
        mean, shape = real(self.mean_runs, name="mean_runs"), real(self.shape, name="shape")
        if not 1 <= mean < math.inf:
            raise ValueError(f"mean_runs={mean} is not a finite number of at least 1")
        if not shape >= 0:
            raise ValueError(
                f"shape={shape} is not a number >= 0; give 1 for a geometric number of runs, 0 "
                "for a logarithmic one, infinity for Poisson"
            )
        object.__setattr__(self, "mean_runs", mean)
        object.__setattr__(self, "shape", shape)
        require_event(self.event, owner="Selected")


def _keep_noise(event: Gaussian | AdaptivelyClipped, name: str) -> None:
    sigma = real(getattr(event, name), name=name)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(
            f"{name}={sigma} is not a finite number >= 0; give the standard deviation of the "
            "noise divided by the clipping norm (of a count: as it is), such as 1.0"
        )
    object.__setattr__(event, name, sigma)


Event: TypeAlias = (
    Gaussian
    | AdaptivelyClipped
    | PoissonSampled
    | Repeated
    | Composed
    | Mixture
    | SampledWithoutReplacement
    | TruncatedPoissonSampled
    | RandomlyAllocated
    | Selected
    | Shuffled
    | Mechanism
    | FiniteMechanism
    | ZCDP
)
