"""Samples whose steps depend on each other: drawn in turns, or so that each unit is in just one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpacc_accounting.events.fields import AnyEvent, chance, positive_count, require_event


@dataclass(frozen=True, kw_only=True)
class CyclicPoissonSampled(AnyEvent):
    """`steps` steps on Poisson samples from `groups` groups in turn.

    Each unit is in one group by a coin of its own, whether or not others know which. Step t draws
    from group t mod `groups`, whose units join it independently with `probability`. The first
    group has ⌈steps / groups⌉ turns, and that is what it costs, for no unit has more.

    Where the noise is correlated, with C of as many bands as there are groups and columns of norm
    at most 1, `event` is one Gaussian of the noise multiplier before correlation: what a unit adds
    in one turn stands in rows of C·G that no other turn of its own reaches. Two units may be in
    groups side by side, whose rows overlap, so that a group of units has the general rule alone.

    Args:
        probability: the chance with which a unit joins a step of its own group's.
        groups: b, at least 1.
        steps: t, at least 1, counted from the first group's turn.
        event: what is run on a sample.

    Raises:
        ValueError: a number is out of range, or `event` is not an event.

    Source: Choquette-Choo et al. 2023 (arXiv 2306.08153), theorem 4.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> CyclicPoissonSampled(probability=0.04, groups=4, steps=10, event=noisy).turns
    3
    """

    probability: float
    groups: int
    steps: int
    event: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", chance(self.probability, name="probability"))
        for name in ("groups", "steps"):
            object.__setattr__(self, name, positive_count(getattr(self, name), name=name))
        require_event(self.event, owner="CyclicPoissonSampled")

    @property
    def turns(self) -> int:
        """⌈steps / groups⌉, in how many steps a unit of the first group may be drawn."""
        return -(-self.steps // self.groups)


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

    >>> from dpacc_accounting.events.event import Gaussian
    >>> RandomlyAllocated(steps=100, event=Gaussian(noise_multiplier=1.0)).steps
    100
    """

    steps: int
    event: Any
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
