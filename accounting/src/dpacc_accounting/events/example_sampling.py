"""Examples are sampled one by one, and whoever owns several of them is protected as a whole.

Of each unit at most k examples are kept, whichever they are. Each joins a step by a coin of its own
with probability q = B/N, and its gradient is clipped by itself. A unit that is in the data or not
moves a step's sum by the number of its examples that were drawn, at most Bin(k, q) times C: a
mixture of Gaussians, whose draw nobody sees ("example-level sampling", Charles et al. 2024, arXiv
2407.07737). Where all of a unit's examples are averaged and then clipped, units are what
is sampled, and [`Participation`][dpacc_accounting.events.participation.Participation] says what
that costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import Event, Repeated
from dpacc_accounting.events.fields import chance, positive_count
from dpacc_accounting.events.participation import PaidInCycles

MOST_EXAMPLES = 1000
"""Of a unit; beyond, chances are not told apart in doubles, and nothing is amplified."""
_ROUNDING = 1e-11
"""More than the relative error of a chance of at most 1,000 draws."""


@dataclass(frozen=True, kw_only=True)
class ExampleSampling(PaidInCycles):
    """Who joins which step where examples are drawn and units of at most k are protected.

    Args:
        dataset_size: N, in examples that are kept.
        expected_batch_size: B, the mean number of examples in a step.
        noise_multiplier: σ, the noise on a sum to which each example adds at most C, over C.
        unit_cap: k, the most examples that are kept of one unit.

    Raises:
        ValueError: a number is out of range, when an event is asked for.

    >>> run = ExampleSampling(
    ...     dataset_size=1000, expected_batch_size=10, noise_multiplier=2.0, unit_cap=4)
    >>> run.event(steps=5).times, len(run.charge(step=0, steps=5).amounts)
    (5, 4)
    """

    dataset_size: int
    expected_batch_size: int
    noise_multiplier: float
    unit_cap: int

    @property
    def probability(self) -> float:
        """The chance with which an example joins a step."""
        return self.expected_batch_size / self.dataset_size

    def event(self, *, steps: int) -> Event:
        """What the first `steps` steps release."""
        return Repeated(event=self.charge(step=0, steps=steps), times=steps)

    def charge(self, *, step: int, steps: int) -> MixtureOfGaussians:
        """What is owed when a step begins, whichever it is."""
        return MixtureOfGaussians(
            noise_multiplier=self.noise_multiplier,
            weights=drawn_of_a_unit(probability=self.probability, unit_cap=self.unit_cap),
            sensitivities=tuple(map(float, range(self.unit_cap + 1))),
        )


def drawn_of_a_unit(*, probability: float, unit_cap: int) -> tuple[float, ...]:
    """The chance that 0 … k of a unit's k examples are drawn, [k + 1]: binomial.

    What rounding leaves open is moved from none to some.

    Args:
        probability: q, with which each is drawn.
        unit_cap: k, from 1 to 1,000.

    Raises:
        ValueError: a number is out of range.

    >>> [round(each, 6) for each in drawn_of_a_unit(probability=0.5, unit_cap=2)]
    [0.25, 0.5, 0.25]
    """
    q = chance(probability, name="probability")
    most = positive_count(unit_cap, name="unit_cap")
    if most > MOST_EXAMPLES:
        raise ValueError(
            f"unit_cap={most} is more than {MOST_EXAMPLES} examples of one unit; keep fewer, or "
            "sample whole units"
        )
    if q == 0 or q == 1:
        return (1 - q, *(0.0 for _ in range(most - 1)), q)
    some = [min(_chance(q, drawn, most) * (1 + _ROUNDING), 1.0) for drawn in range(1, most + 1)]
    total = math.fsum(some)
    return (max(1 - total, 0.0), *(each / max(total, 1.0) for each in some))


def _chance(q: float, drawn: int, most: int) -> float:
    """By logarithms: powers of q underflow where the chance itself does not."""
    ways = math.log(math.comb(most, drawn))
    return math.exp(ways + drawn * math.log(q) + (most - drawn) * math.log1p(-q))
