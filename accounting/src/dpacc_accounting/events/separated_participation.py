"""Rounds without sampling in which nobody takes part again too soon, with correlated noise.

Round t releases row t of C·G + σz, up to what follows from earlier rows: G are the rounds' sums,
z is independent noise, and C is lower triangular and Toeplitz. What a unit adds in a round reaches
that round's row of C·G and later ones, by the column c_0, c_1, …, which is not increasing. All that
it adds, over rounds p_0 < p_1 < … at least b apart, moves C·G by at most

    ‖Σ_j C·e_{jb}‖, so that S² = Σ_t r_t² with r_t = Σ_{j: jb <= t} c_{t−jb}.

For the product of two columns p < q is Σ_{u < T−q} c_u·c_{u+q−p}, of numbers >= 0: the less, the
later q is and the further apart they are. Rounds 0, b, 2b … are the earliest and the closest, and
equal clipped updates add up most (arXiv 2306.08153 and 2405.13763). So the first t + 1 rounds cost
one Gaussian of noise multiplier σ/√(r_0² + … + r_t²), after any t.

A new secret begins a new block of C, whose rows no earlier column reaches. That makes some of those
products 0 and cuts others short, so that no interruption costs more, as long as rounds stay b
apart across it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from dpacc_accounting.events.fields import AnyEvent, count, listed, positive_count, real, shown

_MOST_ROUNDS = 10**6


@dataclass(frozen=True, kw_only=True)
class SeparatedParticipation(AnyEvent):
    """`rounds` rounds, each unit's at least `separation` apart, with noise correlated between them.

    C's first column is c_t = coefficients[t], 0 beyond, plus Σᵢ weights[i]·decays[i]^(t−1) from
    t = 1 on: bands, or with one coefficient the buffers of a buffered linear Toeplitz matrix.
    Nobody is sampled, so that the price is that of one Gaussian.

    Args:
        noise_multiplier: σ, of the noise before it is correlated, over the clipping norm.
        separation: b, at least 1: who took part in round t may again from round t + b on.
        rounds: how many, at least 1.
        after: how many rounds of the same run were paid for before these; S² grows by theirs.
        coefficients: of C's first column, the first above 0, none above the one before.
        weights: of each buffer, >= 0, together at most the first coefficient.
        decays: of each buffer, in [0, 1).
        participations: k, the most rounds that one unit is ever in; None for as many as fit.

    Raises:
        ValueError: a number is out of range, or the column increases.

    Source: Choquette-Choo et al. 2023 (arXiv 2306.08153); Kalinin & Lampert 2024
    (arXiv 2405.13763); McMahan et al. 2024 (arXiv 2404.16706) for buffers.

    >>> run = SeparatedParticipation(noise_multiplier=4.0, separation=2, rounds=7,
    ...                              coefficients=(0.8, 0.6))
    >>> round(run.sensitivity ** 2, 6), round(run.joint_noise_multiplier, 6)
    (3.64, 2.09657)
    """

    noise_multiplier: float
    separation: int
    rounds: int
    after: int = 0
    coefficients: tuple[float, ...] = (1.0,)
    weights: tuple[float, ...] = ()
    decays: tuple[float, ...] = ()
    participations: int | None = None

    def __post_init__(self) -> None:
        sigma = real(self.noise_multiplier, name="noise_multiplier")
        if not sigma >= 0:
            raise ValueError(f"noise_multiplier={sigma} is not a number >= 0")
        object.__setattr__(self, "noise_multiplier", sigma)
        for name in ("separation", "rounds"):
            object.__setattr__(self, name, positive_count(getattr(self, name), name=name))
        object.__setattr__(self, "after", count(self.after, name="after"))
        if self.participations is not None:
            most = positive_count(self.participations, name="participations")
            object.__setattr__(self, "participations", most)
        for name in ("coefficients", "weights", "decays"):
            given = listed(getattr(self, name), name=name)
            object.__setattr__(self, name, tuple(real(c, name=f"one of {name}") for c in given))
        if self.after + self.rounds > _MOST_ROUNDS:
            raise ValueError(
                f"after={self.after} and rounds={self.rounds} are more than {_MOST_ROUNDS:,} "
                "together, beyond what is added up"
            )
        self._require_decreasing()

    @property
    def sensitivity(self) -> float:
        """By how much these rounds' rows of C·G move, in clipping norms: √(Σ r_t²) over them."""
        rows = range(self.after, self.after + self.rounds)
        return math.sqrt(math.fsum(self._row(t) ** 2 for t in rows))

    @property
    def joint_noise_multiplier(self) -> float:
        """σ/S of the one Gaussian that these rounds amount to; infinite where S is 0."""
        moved = self.sensitivity
        return self.noise_multiplier / moved if moved else math.inf

    @property
    def turns(self) -> int:
        """The most of all rounds up to the last of these in which one unit can have been."""
        fit = -(-(self.after + self.rounds) // self.separation)
        return fit if self.participations is None else min(fit, self.participations)

    def joined(self, later: SeparatedParticipation) -> SeparatedParticipation | None:
        """These rounds and `later` ones as one event, where those go on with the same run.

        >>> first, second = (SeparatedParticipation(noise_multiplier=1.0, separation=2, rounds=3,
        ...                                         after=after) for after in (0, 3))
        >>> first.joined(second).rounds, first.joined(first)
        (6, None)
        """
        both = replace(self, rounds=self.rounds + later.rounds)
        goes_on = replace(later, after=self.after, rounds=both.rounds) == both
        return both if goes_on and later.after == self.after + self.rounds else None

    def _row(self, t: int) -> float:
        """r_t, up to which an entry of row t of C·G moves."""
        b, most = self.separation, self.turns
        begun = min(t // b + 1, most)
        oldest, youngest = t, t - (begun - 1) * b
        last = len(self.coefficients) - 1
        written = [self.coefficients[age] for age in range(youngest, min(oldest, last) + 1, b)]
        return math.fsum(written + self._buffered(t))

    def _buffered(self, t: int) -> list[float]:
        """What each buffer adds to r_t: a geometric sum over the turns before round t."""
        b = self.separation
        before = min(-(-t // b), self.turns)
        if before == 0:
            return []
        newest = t - 1 - (before - 1) * b
        return [
            weight * decay**newest * _geometric(decay**b, before)
            for weight, decay in zip(self.weights, self.decays, strict=True)
        ]

    def _require_decreasing(self) -> None:
        column, weights = self.coefficients, self.weights
        finite = all(0 <= c < math.inf for c in (*column, *weights))
        falls = all(later <= c for c, later in pairwise(column))
        if not (finite and column and column[0] > 0 and falls):
            raise ValueError(
                f"coefficients={shown(column)} and weights={shown(weights)} are not finite numbers "
                ">= 0, the first coefficient above 0 and none above the one before: else rounds "
                "0, b, 2b … need not be those that move the release most"
            )
        within = all(0 <= decay < 1 for decay in self.decays)
        if len(weights) != len(self.decays) or not within:
            raise ValueError(
                f"decays={shown(self.decays)} are not one number in [0, 1) for each of "
                f"{len(weights)} weights"
            )
        if weights and (len(column) > 1 or math.fsum(weights) > column[0] * (1 + 1e-14)):
            raise ValueError(
                "weights stand beside one coefficient, and add up to at most that: else the "
                "column would increase"
            )


def _geometric(ratio: float, terms: int) -> float:
    """1 + ratio + … of so many terms.

    >>> _geometric(0.5, 3)
    1.75
    """
    if ratio == 0:
        return 1.0
    return math.expm1(terms * math.log(ratio)) / math.expm1(math.log(ratio))
