"""What a federation did, or will do: immutable descriptions that `federation` prices.

`reading` builds them from a plain mapping, such as a YAML or JSON file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dpacc_accounting.events.event import (
    Composed,
    Event,
    Gaussian,
    Mixture,
    PoissonSampled,
    Repeated,
)
from dpacc_accounting.factorization.buffered import ToeplitzColumn
from dpacc_accounting.guarantee import Adjacency, Note

NoiseKind: TypeAlias = Literal["central", "distributed-gaussian", "discrete-gaussian", "skellam"]


@dataclass(frozen=True, kw_only=True)
class LocalRounds:
    """Rounds of one client that are all alike: `local_steps` steps of DP-SGD in each.

    Args:
        rounds: R, how many; where `participation` is below 1, those the client might join.
        local_steps: E, noised steps the client takes in each round that it joins.
        sampling_probability: q, each of the client's examples' chance to join one step (Poisson).
        noise_multiplier: σ, noise standard deviation over clipping norm in each step.
        participation: c, the chance with which the client joins each round, by a coin that
            nobody who sees only the released models learns.

    >>> LocalRounds(rounds=10, local_steps=5, sampling_probability=0.1,
    ...             noise_multiplier=1.0).as_joined
    Repeated(event=PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.0)), times=50)
    """

    rounds: int
    local_steps: int
    sampling_probability: float
    noise_multiplier: float
    participation: float = 1.0

    @property
    def as_joined(self) -> Event:
        """All R·E steps: what whoever knows the rounds a client joined must count."""
        return Repeated(event=self._step, times=self.rounds * self.local_steps)

    @property
    def as_hidden(self) -> Event:
        """R rounds, each joined by a hidden coin of chance c: never E steps sampled at c·q.

        All E steps of a round share the coin. The exact law is known in two cases: for E = 1 the
        two coins are one of chance c·q, and for q = 1 the E Gaussians are one of noise σ/√E. In
        all others it is bounded by the mixture `c·PLD^E + (1 − c)·identity`, by joint convexity of
        the hockey-stick divergence.
        """
        if self.participation == 1 or self.local_steps == 0:
            return self.as_joined
        local = Repeated(event=self._step, times=self.local_steps)
        if self.shares_a_coin:
            chances = (self.participation, 1 - self.participation)
            once: Event = Mixture(weights=chances, events=(local, Composed(events=())))
        else:
            once = PoissonSampled(probability=self.participation, event=local)
        return Repeated(event=once, times=self.rounds)

    @property
    def shares_a_coin(self) -> bool:
        """Whether several sampled steps of a round depend on one hidden coin."""
        return self.participation < 1 and self.local_steps > 1 and self.sampling_probability < 1

    @property
    def _step(self) -> Event:
        noise = Gaussian(noise_multiplier=self.noise_multiplier)
        if self.sampling_probability == 1:
            return noise
        return PoissonSampled(probability=self.sampling_probability, event=noise)


MOST_KINDS = 64
"""Different steps of one client that are composed one by one: each takes time and memory."""


def count_kinds(schedule: tuple[LocalRounds, ...]) -> int:
    """How many kinds of rounds these are, however often each of them comes.

    >>> parts = tuple(LocalRounds(rounds=rounds, local_steps=2, sampling_probability=0.1,
    ...                           noise_multiplier=noise) for rounds in (1, 3) for noise in (1, 2))
    >>> len(parts), count_kinds(parts)
    (4, 2)
    """
    kinds = {
        (each.sampling_probability, each.noise_multiplier, each.participation, each.local_steps)
        for each in schedule
    }
    return len(kinds)


def few_kinds(schedule: tuple[LocalRounds, ...]) -> tuple[LocalRounds, ...]:
    """These rounds, or where they are of more than 64 kinds, as few that cost no less.

    Rounds of similar noise become one kind, of the least noise and the largest q among them, joined
    for certain: less noise, a larger q and a known participation never make a loss smaller. So one
    client that says another σ in each of thousands of rounds costs whoever prices it no more than
    64 others do.

    >>> parts = tuple(LocalRounds(rounds=1, local_steps=2, sampling_probability=0.1,
    ...                           noise_multiplier=1 + at / 100) for at in range(128))
    >>> found = few_kinds(parts)
    >>> len(found), found[0].rounds, found[0].noise_multiplier
    (64, 4, 1.0)
    """
    if count_kinds(schedule) <= MOST_KINDS:
        return schedule
    ordered = sorted(schedule, key=lambda each: each.noise_multiplier)
    size = -(-len(ordered) // MOST_KINDS)
    similar = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    return tuple(
        LocalRounds(
            rounds=sum(each.rounds * each.local_steps for each in parts),
            local_steps=1,
            sampling_probability=max(each.sampling_probability for each in parts),
            noise_multiplier=parts[0].noise_multiplier,
        )
        for parts in similar
    )


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client, or `count` equal ones, and the rounds it took part in.

    Args:
        name: how reports call it.
        schedule: its rounds, in any order; the guarantee does not depend on it.
        count: how many clients this describes.
        epsilon_budget: the ε that this client agreed to spend, if it named one.
        calibrated: whether σ was solved for from `epsilon_budget`.
        choices: ε of each choice that it made from its data by an exponential mechanism, such as
            that of its own rank; both views count them.
        unit: what one row of its data stands for; None where it is the federation's.
        notes: what its ledger says beside its releases, which voids or qualifies either price.
    """

    name: str
    schedule: tuple[LocalRounds, ...]
    count: int = 1
    epsilon_budget: float | None = None
    calibrated: bool = False
    choices: tuple[float, ...] = ()
    unit: str | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExampleFederation:
    """Clients that run DP-SGD on their own examples and send what it yields to a server.

    Args:
        clients: each with its own q, σ, E and rounds.
        delta: δ at which every ε is stated.
        overlaps: names of clients that may hold data of the same unit.
        adjacency: which datasets are neighbours.
        unit: what one row of a client's data stands for, where the client does not say.
    """

    clients: tuple[Client, ...]
    delta: float
    overlaps: tuple[tuple[str, ...], ...] = ()
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE
    unit: str = "example"


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Client-level rounds that are all alike.

    Args:
        rounds: R, how many.
        sampling_rate: p, each client's chance to be drawn for a round, by a secret coin (Poisson)
            unless `population` is given; 1 where no amplification is claimed.
        noise_multiplier: σ, standard deviation of the noise on the sum of clipped updates over
            their clipping norm; under distributed noise that of the guaranteed honest survivors.
        survivors: how many clients' noise reached the sum in each of these rounds; None before.
        opened: whether a sum was opened at all: secure aggregation opens none below its threshold.
        population: N, where each round draws exactly `cohort_size` of N clients, every such cohort
            equally likely; priced under replace-one or zero-out adjacency.
        cohort_size: n of those N; p = n/N.
    """

    rounds: int
    sampling_rate: float
    noise_multiplier: float
    survivors: int | None = None
    opened: bool = True
    population: int | None = None
    cohort_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """Who adds the noise when no server is trusted with it.

    Each client adds noise of standard deviation σ·C/√h, h = threshold − colluding being the
    honest clients whose noise is in every sum that the protocol opens.

    Args:
        clients: n, the clients that a round starts with.
        threshold: t, the fewest survivors with which the protocol opens the sum.
        colluding: how many of them may tell the server their noise.
        signed: whether clients check who the others are, so that nobody can be invented.

    >>> SecureAggregation(clients=100, threshold=70, colluding=6).honest
    64
    """

    clients: int
    threshold: int
    colluding: int = 0
    signed: bool = False

    @property
    def honest(self) -> int:
        """h, the honest clients whose noise is guaranteed."""
        return self.threshold - self.colluding


@dataclass(frozen=True, kw_only=True)
class Discretization:
    """How updates become vectors of integers, which secure aggregation adds.

    Args:
        dimension: d, coordinates of an update (of its padded rotation).
        granularity: γ, the width of the integer grid over the clipping norm C.
        rounding_bias: β in [0, 1): stochastic rounding is repeated until the norm grew by no more
            than a bound that holds with probability 1 − β; 0 bounds it always.
    """

    dimension: int
    granularity: float
    rounding_bias: float = 0.6065306597126334


@dataclass(frozen=True, kw_only=True)
class CorrelatedRounds:
    """Rounds without sampling whose central noise is correlated, and how far apart turns are.

    Args:
        min_separation: b: who took part in round t may again from round t + b on.
        column: C's first column.
    """

    min_separation: int
    column: ToeplitzColumn


@dataclass(frozen=True, kw_only=True)
class ClientFederation:
    """Clients whose clipped updates are summed, noised, and divided by a fixed number.

    Args:
        schedule: the rounds, in any order.
        delta: δ at which every ε is stated.
        noise: who adds it, and from which law.
        secure_aggregation: needed for every noise but the central one.
        discretization: needed for the discrete laws.
        most_rounds: the most rounds in which one client ever takes part, if that is enforced.
        correlated: how central noise is correlated between rounds, if it is.
        adjacency: which federations are neighbours.
        unit: whose data one unit is.
        notes: what the server's ledger says beside its releases; voids or qualifies every price.
    """

    schedule: tuple[Cohorts, ...]
    delta: float
    noise: NoiseKind = "central"
    secure_aggregation: SecureAggregation | None = None
    discretization: Discretization | None = None
    most_rounds: int | None = None
    correlated: CorrelatedRounds | None = None
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE
    unit: str = "client"
    notes: tuple[Note, ...] = ()


Federation: TypeAlias = ExampleFederation | ClientFederation
