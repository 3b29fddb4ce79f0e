"""What was run: immutable descriptions of mechanisms and of their compositions.

An event says nothing of its cost; `dpacc_accounting.epsilon` and `dpacc_accounting.delta` price it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from dpacc_accounting.events.clipped_sums import AdaptivelyClipped, ClippedSum, Gaussian
from dpacc_accounting.events.fields import (
    MOST_UNITS,
    AnyEvent,
    chance,
    count,
    listed,
    positive_count,
    real,
    require_event,
)
from dpacc_accounting.events.finite_mechanisms import (
    ZCDP,
    ApproximateDP,
    DiscreteLaplace,
    FiniteMechanism,
    PermuteAndFlip,
    RandomizedResponse,
)
from dpacc_accounting.events.mechanisms import (
    DiscreteGaussian,
    ExponentialMechanism,
    Laplace,
    Mechanism,
    Skellam,
)
from dpacc_accounting.events.sampled_over_steps import CyclicPoissonSampled, RandomlyAllocated
from dpacc_accounting.events.separated_participation import SeparatedParticipation

__all__ = [
    "ZCDP",
    "AdaptivelyClipped",
    "ApproximateDP",
    "Composed",
    "CyclicPoissonSampled",
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
    "SeparatedParticipation",
    "Shuffled",
    "Skellam",
    "TruncatedPoissonSampled",
]


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


@dataclass(frozen=True, kw_only=True)
class PoissonSampled(AnyEvent):
    """`event`, run on a secret subset that each unit joins independently with `probability`.

    Shuffled or fixed-size batches are not this event, and are not amplified the same way.

    Args:
        probability: q in [0, 1], the same for every privacy unit.
        event: what is run on the subset.

    Raises:
        ValueError: q is NaN or outside [0, 1], or `event` is not an event.

    Source: Abadi et al. 2016 (arXiv 1607.00133); Balle, Barthe & Gaboardi 2018
    (arXiv 1807.01647).

    >>> PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0)).probability
    0.01
    """

    probability: float
    event: Event

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", chance(self.probability, name="probability"))
        require_event(self.event, owner="PoissonSampled")


@dataclass(frozen=True, kw_only=True)
class SampledWithoutReplacement(AnyEvent):
    """`event`, run on `sample_size` of `dataset_size` units, every such subset equally likely.

    Priced under replace-one and zero-out adjacency, which leave the size of the dataset as it is;
    zero-out counts who is in the batch as seen: safe, not tight. Batches cut from one shuffled
    order are not this event: they depend on each other.

    Args:
        sample_size: units in the batch, at least 1.
        dataset_size: units in the dataset, at least `sample_size`.
        event: what is run on the batch.

    Raises:
        ValueError: the sizes do not fit, or `event` is not an event.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647), theorem 10.

    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> SampledWithoutReplacement(sample_size=64, dataset_size=1000, event=noisy).sample_size
    64
    """

    sample_size: int
    dataset_size: int
    event: Event

    def __post_init__(self) -> None:
        for name in ("sample_size", "dataset_size"):
            object.__setattr__(self, name, count(getattr(self, name), name=name))
        if not 1 <= self.sample_size <= self.dataset_size:
            raise ValueError(
                f"sample_size={self.sample_size} is not between 1 and "
                f"dataset_size={self.dataset_size}"
            )
        require_event(self.event, owner="SampledWithoutReplacement")


@dataclass(frozen=True, kw_only=True)
class TruncatedPoissonSampled(AnyEvent):
    """`event`, run on a Poisson sample of which at most `largest_batch` units are kept.

    Where more are drawn, a uniform subset is kept: a batch of fixed physical size. Leave room: at
    an expected batch of `largest_batch`, half of all batches are cut, and a unit that joins one
    takes another's place.

    Args:
        probability: q in [0, 1], with which each unit is drawn.
        largest_batch: B, the most units that are kept, at least 1.
        dataset_size: N, the units of the larger of two neighbouring datasets.
        event: what is run on the batch: Gaussian sums.

    Raises:
        ValueError: a number is out of range, or `event` is not an event.

    Source: arXiv 2508.15089.

    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> TruncatedPoissonSampled(probability=0.01, largest_batch=16, dataset_size=1000,
    ...                         event=noisy).largest_batch
    16
    """

    probability: float
    largest_batch: int
    dataset_size: int
    event: Event

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", chance(self.probability, name="probability"))
        for name in ("largest_batch", "dataset_size"):
            size = positive_count(getattr(self, name), name=name)
            if size > MOST_UNITS:
                raise ValueError(f"{name} is more than 10^15, beyond what chances are counted for")
            object.__setattr__(self, name, size)
        require_event(self.event, owner="TruncatedPoissonSampled")

    @property
    def may_be_full(self) -> bool:
        """Whether more units can be drawn than are kept."""
        return self.largest_batch < self.dataset_size


@dataclass(frozen=True, kw_only=True)
class Shuffled(AnyEvent):
    """One epoch over a shuffled dataset cut into batches, `event` being run on each.

    No accountant may treat it as Poisson sampling: the batches depend on each other, and its ε can
    be far larger. Pricing refuses it; `without_amplification` turns it into what may be priced,
    `event` on the one batch that holds the unit. Under add-or-remove adjacency this takes a removed
    unit to leave its place empty, so that no other unit changes batch.

    Args:
        event: what is run on each batch; anything but an event is a ValueError.

    Source: Chua et al. 2024 (arXiv 2403.17673); Annamalai et al. 2024 (arXiv 2411.04205).

    >>> from dpacc_accounting.pld.amplification import without_amplification
    >>> without_amplification(event=Shuffled(event=Gaussian(noise_multiplier=1.0)))
    Gaussian(noise_multiplier=1.0)
    """

    event: Event

    def __post_init__(self) -> None:
        require_event(self.event, owner="Shuffled")


Event: TypeAlias = (
    Gaussian
    | ClippedSum
    | PoissonSampled
    | Repeated
    | Composed
    | Mixture
    | SampledWithoutReplacement
    | TruncatedPoissonSampled
    | CyclicPoissonSampled
    | RandomlyAllocated
    | SeparatedParticipation
    | Selected
    | Shuffled
    | Mechanism
    | FiniteMechanism
    | ZCDP
)
