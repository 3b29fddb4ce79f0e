"""What is run on a part of the data: who takes part, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpacc_accounting.event_fields import (
    AnyEvent,
    chance,
    count,
    positive_count,
    require_event,
)

if TYPE_CHECKING:
    from dpacc_accounting.events import Event

# Binomial chances of larger numbers lose their digits.
_MOST_UNITS = 10**15


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

    >>> from dpacc_accounting import Gaussian
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

    >>> from dpacc_accounting import Gaussian
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

    >>> from dpacc_accounting import Gaussian
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
            if size > _MOST_UNITS:
                raise ValueError(f"{name} is more than 10^15, beyond what chances are counted for")
            object.__setattr__(self, name, size)
        require_event(self.event, owner="TruncatedPoissonSampled")

    @property
    def may_be_full(self) -> bool:
        """Whether more units can be drawn than are kept."""
        return self.largest_batch < self.dataset_size


@dataclass(frozen=True, kw_only=True)
class RandomlyAllocated(AnyEvent):
    """`steps` steps, `event` being run on each: every unit is in exactly `participations` of them.

    Each unit's set of steps is drawn uniformly and independently of the others', in secret ("balls
    and bins"); batches therefore differ in size. Batches of one size, cut from a shuffled order,
    are not this event. `Repeated` draws anew for each epoch.

    k of t steps are priced as k blocks of ⌊t/k⌋ or ⌈t/k⌉ steps, a unit being in one step of each.
    A uniform set of k steps is a random partition into such blocks and a uniform step of each; who
    sees the partition, which does not depend on the data, sees no less, and every partition costs
    the same. From below, all steps' sum is one Gaussian of noise σ·√t/k.

    Args:
        steps: t, at least 1.
        event: what is run in each step: Gaussian sums.
        participations: k, from 1 to t.

    Raises:
        ValueError: `steps` or `participations` is out of range, or `event` is not an event.

    Source: Chua et al. 2024 (arXiv 2412.16802); Feldman & Shenfeld 2025 (arXiv 2502.08202).

    >>> from dpacc_accounting import Gaussian
    >>> RandomlyAllocated(steps=100, event=Gaussian(noise_multiplier=1.0)).steps
    100
    """

    steps: int
    event: Event
    participations: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "participations"):
            object.__setattr__(self, name, positive_count(getattr(self, name), name=name))
        if self.participations > self.steps:
            raise ValueError(
                f"participations={self.participations} exceeds steps={self.steps}, in each of "
                "which a unit is at most once"
            )
        require_event(self.event, owner="RandomlyAllocated")

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """How many steps each block has that a unit is once in, and how many such blocks."""
        size, larger = divmod(self.steps, self.participations)
        sizes = [(size, self.participations - larger), (size + 1, larger)]
        return [(steps, count) for steps, count in sizes if count]


@dataclass(frozen=True, kw_only=True)
class Shuffled(AnyEvent):
    """One epoch over a shuffled dataset cut into batches, `event` being run on each.

    No accountant may treat it as Poisson sampling: the batches depend on each other, and its ε can
    be far larger. Pricing refuses it; `without_amplification` turns it into what may be priced,
    `event` on the one batch that holds the unit. Under add-or-remove adjacency this takes a removed
    unit to leave its place empty, so that no other unit changes batch.

    Args:
        event: what is run on each batch.

    Raises:
        ValueError: `event` is not an event.

    Source: Chua et al. 2024 (arXiv 2403.17673); Annamalai et al. 2024 (arXiv 2411.04205).

    >>> from dpacc_accounting import Gaussian
    >>> from dpacc_accounting.amplification import without_amplification
    >>> without_amplification(event=Shuffled(event=Gaussian(noise_multiplier=1.0)))
    Gaussian(noise_multiplier=1.0)
    """

    event: Event

    def __post_init__(self) -> None:
        require_event(self.event, owner="Shuffled")
