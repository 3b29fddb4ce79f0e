"""How units take part in the steps of a training run, and so what its steps cost.

A run of correlated noise draws units in turns: each is in one of b groups by a secret coin of its
own, group g takes the steps t ≡ g (mod b), and a unit joins a step of its group's with probability
bB/N. The noise of step t is σC·(C⁻¹z)_t with a lower triangular C of b bands. What a unit adds to
step t reaches the rows t … t + b − 1 of C·G alone, and the rows of its next turn begin after them:
so turn after turn is one Poisson-sampled Gaussian whose sensitivity is a column's norm, at most 1
(Choquette-Choo et al. 2023, arXiv 2306.08153, theorem 4). Groups hold different units, so that the
price is that of the group with the most turns, whoever knows the groups.

A run of random allocation has epochs of E = ⌈N/B⌉ steps. Each unit is in exactly one of them, drawn
uniformly in secret and anew for each epoch (Chua et al. 2024, arXiv 2412.16802; Feldman & Shenfeld
2025, arXiv 2502.08202). Of an epoch that the run's end cuts off after r steps, a unit is in one of
these with chance r/E, and in each of them alike: what is released is a random allocation to r steps
of a Poisson sample.

A run of several phases changes its batch or its noise after steps that were fixed beforehand. Every
step has coins of its own, so that it is one Poisson-sampled Gaussian with the numbers of its phase,
and a run costs what they compose to, whatever is chosen in later phases by what earlier ones
released (adaptive composition).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

from dpacc_accounting.events.arguments import require_noise
from dpacc_accounting.events.event import (
    Composed,
    CyclicPoissonSampled,
    Event,
    Gaussian,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
)
from dpacc_accounting.events.fields import positive_count, shown

NOTHING = Composed(events=())


class PaidInCycles:
    """A run whose secret may change between two cycles, of one step unless it says otherwise."""

    @property
    def cycle(self) -> int:
        """After how many steps a new secret may begin."""
        return 1

    def next_start(self, *, steps_charged: int) -> int:
        """The first step at which a new secret may begin: that of the next cycle.

        >>> Participation(dataset_size=1000, expected_batch_size=10, noise_multiplier=1.0, bands=4
        ...               ).next_start(steps_charged=9)
        12
        >>> EpochAllocation(dataset_size=40, expected_batch_size=10, noise_multiplier=1.0,
        ...                 planned_steps=10).next_start(steps_charged=5)
        8
        """
        return -(-steps_charged // self.cycle) * self.cycle


@dataclass(frozen=True, kw_only=True)
class Participation(PaidInCycles):
    """Who joins which step of a run whose steps add Gaussian noise.

    Args:
        dataset_size: N, in privacy units.
        expected_batch_size: B, the mean number of units in a step.
        noise_multiplier: σ, of the noise before it is correlated.
        bands: b, how many bands C has; 1 is independent noise on independent Poisson samples.

    >>> run = Participation(
    ...     dataset_size=1000, expected_batch_size=10, noise_multiplier=1.0, bands=4)
    >>> run.event(steps=10).turns, run.probability
    (3, 0.04)
    """

    dataset_size: int
    expected_batch_size: int
    noise_multiplier: float
    bands: int = 1

    @property
    def cycle(self) -> int:
        """After how many steps every unit has had one turn, and a new secret may begin."""
        return self.bands

    @property
    def probability(self) -> float:
        """The chance with which a unit joins a step that it may join."""
        return self.bands * self.expected_batch_size / self.dataset_size

    def event(self, *, steps: int) -> Event:
        """What the first `steps` steps release.

        >>> Participation(dataset_size=100, expected_batch_size=10, noise_multiplier=1.0
        ...               ).event(steps=5).times
        5
        """
        if self.bands == 1:
            return Repeated(event=self._sampled, times=steps)
        return self._turns(steps) if steps else NOTHING

    def charge(self, *, step: int, steps: int) -> Event:
        """What is owed when step `step` of `steps` begins.

        Whole cycles are paid when they begin, by the group whose turn comes first; the other
        steps of a cycle owe nothing more.

        >>> run = Participation(
        ...     dataset_size=1000, expected_batch_size=10, noise_multiplier=1.0, bands=4)
        >>> run.charge(step=8, steps=10).steps, run.charge(step=9, steps=10) == NOTHING
        (2, True)
        """
        if self.bands == 1:
            return self._sampled
        if step % self.bands:
            return NOTHING
        return self._turns(min(self.bands, steps - step))

    @property
    def _sampled(self) -> Event:
        noise = Gaussian(noise_multiplier=self.noise_multiplier)
        return PoissonSampled(probability=self.probability, event=noise)

    def _turns(self, steps: int) -> CyclicPoissonSampled:
        return CyclicPoissonSampled(
            probability=self.probability,
            groups=self.bands,
            steps=steps,
            event=Gaussian(noise_multiplier=self.noise_multiplier),
        )


@dataclass(frozen=True, kw_only=True)
class EpochAllocation(PaidInCycles):
    """Each unit in exactly one step of each epoch, in a run whose steps add Gaussian noise.

    Args:
        dataset_size: N, in privacy units.
        expected_batch_size: B; an epoch has ⌈N/B⌉ steps, so that one holds at most B on average.
        noise_multiplier: σ.
        planned_steps: T, after which the last epoch is cut off, if it is not over.

    >>> run = EpochAllocation(
    ...     dataset_size=1000, expected_batch_size=300, noise_multiplier=1.0, planned_steps=10)
    >>> run.cycle, run.probability, len(run.event(steps=10).events)
    (4, 0.25, 2)
    """

    dataset_size: int
    expected_batch_size: int
    noise_multiplier: float
    planned_steps: int

    @property
    def cycle(self) -> int:
        """E, the steps of an epoch, after which a new secret may begin.

        >>> EpochAllocation(dataset_size=8192, expected_batch_size=512, noise_multiplier=1.0,
        ...                 planned_steps=32).cycle
        16
        """
        return steps_an_epoch(
            dataset_size=self.dataset_size, expected_batch_size=self.expected_batch_size
        )

    @property
    def probability(self) -> float:
        """The chance 1/E with which a unit is in a given step."""
        return 1 / self.cycle

    def event(self, *, steps: int) -> Event:
        """What is paid for when `steps` steps were begun: every epoch that one of them is in."""
        begun = -(-steps // self.cycle)
        whole = min(begun, self.planned_steps // self.cycle)
        epochs = _repeated(self._epoch(self.cycle), times=whole)
        if begun == whole:
            return epochs
        cut = self._epoch(self.planned_steps - whole * self.cycle)
        return Composed(events=(epochs, cut)) if whole else cut

    def charge(self, *, step: int, steps: int) -> Event:
        """What is owed when step `step` of `steps` begins: an epoch's first step pays for all.

        >>> run = EpochAllocation(
        ...     dataset_size=40, expected_batch_size=10, noise_multiplier=1.0, planned_steps=10)
        >>> run.charge(step=4, steps=10).steps, run.charge(step=5, steps=10) == NOTHING
        (4, True)
        >>> run.charge(step=8, steps=10).probability
        0.5
        """
        if step % self.cycle:
            return NOTHING
        return self._epoch(min(self.cycle, steps - step))

    def _epoch(self, steps: int) -> Event:
        """The first `steps` steps of an epoch."""
        noise = Gaussian(noise_multiplier=self.noise_multiplier)
        taken = RandomlyAllocated(steps=steps, event=noise)
        if steps == self.cycle:
            return taken
        return PoissonSampled(probability=steps / self.cycle, event=taken)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some steps of a run with one batch size and one noise of their own.

    Args:
        steps: how many, at least 1.
        expected_batch_size: B, the mean number of units in each, at least 1.
        noise_multiplier: σ >= 0, of the noise in each.

    Raises:
        ValueError: a number is out of range.

    >>> Phase(steps=10, expected_batch_size=32, noise_multiplier=1).noise_multiplier
    1.0
    """

    steps: int
    expected_batch_size: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        for name in ("steps", "expected_batch_size"):
            object.__setattr__(self, name, positive_count(getattr(self, name), name=name))
        sigma = require_noise("noise_multiplier", self.noise_multiplier)
        object.__setattr__(self, "noise_multiplier", sigma)

    @classmethod
    def read(cls, document: Any) -> Self:
        """What JSON holds of a phase; a `Phase` is read as it is.

        Raises:
            ValueError: it is no mapping of exactly these three numbers.

        >>> Phase.read({"steps": 2, "expected_batch_size": 3, "noise_multiplier": 1.5}).steps
        2
        """
        if isinstance(document, cls):
            return document
        names = {each.name for each in fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            raise ValueError(
                f"the phase {shown(document)} is not a mapping of {', '.join(sorted(names))}"
            )
        return cls(**document)


@dataclass(frozen=True, kw_only=True)
class PhasedParticipation(PaidInCycles):
    """Who joins which step of a run of Poisson samples in several phases.

    Args:
        dataset_size: N, in privacy units.
        phases: in their order; the last one has no end, so that a step too many is charged, too.

    >>> run = PhasedParticipation(dataset_size=100, phases=(
    ...     Phase(steps=2, expected_batch_size=10, noise_multiplier=3.0),
    ...     Phase(steps=3, expected_batch_size=20, noise_multiplier=1.5)))
    >>> [run.charge(step=step, steps=5).probability for step in (1, 2)]
    [0.1, 0.2]
    >>> [part.times for part in run.event(steps=4).events]
    [2, 2]
    """

    dataset_size: int
    phases: tuple[Phase, ...]

    def event(self, *, steps: int) -> Event:
        """What the first `steps` steps release."""
        starts = [min(start, steps) for start in phase_starts(self.phases)]
        counts = [end - start for start, end in pairwise([*starts, steps])]
        parts = [
            self._of(phase).event(steps=count)
            for phase, count in zip(self.phases, counts, strict=True)
            if count
        ]
        return Composed(events=tuple(parts)) if parts else NOTHING

    def charge(self, *, step: int, steps: int) -> Event:
        """What is owed when step `step` begins: a step of the phase that it is in."""
        return self._of(phase_at(self.phases, step=step)).charge(step=step, steps=steps)

    def _of(self, phase: Phase) -> Participation:
        return Participation(
            dataset_size=self.dataset_size,
            expected_batch_size=phase.expected_batch_size,
            noise_multiplier=phase.noise_multiplier,
        )


def phase_starts(phases: tuple[Phase, ...]) -> list[int]:
    """The first step of each phase.

    >>> phase = Phase(steps=2, expected_batch_size=10, noise_multiplier=3.0)
    >>> phase_starts((phase, phase, phase))
    [0, 2, 4]
    """
    starts = [0]
    for phase in phases[:-1]:
        starts.append(starts[-1] + phase.steps)
    return starts


def phase_at(phases: tuple[Phase, ...], *, step: int) -> Phase:
    """The phase that a step is in; beyond the end, the last.

    >>> first = Phase(steps=2, expected_batch_size=10, noise_multiplier=3.0)
    >>> last = Phase(steps=1, expected_batch_size=20, noise_multiplier=1.5)
    >>> [phase_at((first, last), step=step) is last for step in (0, 1, 2, 9)]
    [False, False, True, True]
    """
    begun = sum(start <= step for start in phase_starts(phases))
    return phases[max(begun, 1) - 1]


def steps_an_epoch(*, dataset_size: int, expected_batch_size: int) -> int:
    """E = ⌈N/B⌉, the least number of steps that hold at most B units on average.

    >>> steps_an_epoch(dataset_size=1000, expected_batch_size=300)
    4
    """
    return -(-dataset_size // expected_batch_size)


def _repeated(event: Event, *, times: int) -> Event:
    if times == 0:
        return NOTHING
    return event if times == 1 else Repeated(event=event, times=times)
