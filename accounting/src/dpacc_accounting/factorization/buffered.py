"""A C whose inverse needs a few buffers of memory, however many rounds it reaches.

A buffered linear Toeplitz matrix has the first column 1, Σ ωᵢ, Σ ωᵢλᵢ, Σ ωᵢλᵢ², …. Then w = C⁻¹z
is w_t = z_t − Σ ωᵢ·sᵢ with sᵢ ← λᵢ·sᵢ + w_t after each round: a vector for each buffer, where bands
need one for each earlier round that they reach (McMahan et al. 2024, arXiv 2404.16706).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpacc_accounting.events.arguments import whole
from dpacc_accounting.events.separated_participation import SeparatedParticipation
from dpacc_accounting.factorization.banded import inverse_series, optimal_coefficients
from dpacc_accounting.factorization.workload import NoiseTable, Series, Workload

# Numbers are cut to so many decimals, so that other processors' last digits do not show.
_DECIMALS = 6
# In place of a logarithm that has no double.
_UNBOUNDED = 1e3


@dataclass(frozen=True, kw_only=True)
class ToeplitzColumn:
    """C's first column: bands written out, or one coefficient and buffers.

    Args:
        coefficients: c_0, c_1, … of bands; of buffers c_0 alone.
        weights: ωᵢ·c_0 of each buffer.
        decays: λᵢ of each buffer.

    >>> ToeplitzColumn(coefficients=(0.8,), weights=(0.4,), decays=(0.5,)).series(4).tolist()
    [0.8, 0.4, 0.2, 0.1]
    """

    coefficients: tuple[float, ...]
    weights: tuple[float, ...] = ()
    decays: tuple[float, ...] = ()

    @property
    def kept(self) -> int:
        """How many vectors as long as an update the noise of the next round is made from."""
        return len(self.weights) or len(self.coefficients) - 1

    def series(self, rounds: int) -> Series:
        """The column's first numbers, [rounds]."""
        column = np.zeros(rounds)
        column[: len(self.coefficients)] = self.coefficients[:rounds]
        for weight, decay in zip(self.weights, self.decays, strict=True):
            column[1:] += weight * decay ** np.arange(rounds - 1)
        return column

    def event(
        self,
        *,
        noise_multiplier: float,
        separation: int,
        rounds: int,
        after: int = 0,
        participations: int | None = None,
    ) -> SeparatedParticipation:
        """What rounds with this C release; arguments as of the event."""
        return SeparatedParticipation(
            noise_multiplier=noise_multiplier,
            separation=separation,
            rounds=rounds,
            after=after,
            coefficients=self.coefficients,
            weights=self.weights,
            decays=self.decays,
            participations=participations,
        )

    def relative_error(
        self, *, workload: Workload, separation: int, participations: int | None = None
    ) -> float:
        """Root mean square of the noise in a workload, over independent noise of the same price.

        >>> usual = ToeplitzColumn(coefficients=(1.0,))
        >>> usual.relative_error(workload=Workload.constant(steps=10), separation=3)
        1.0
        """
        left = NoiseTable(workload).mean_square(inverse_series(self.series(workload.steps)))
        own, independent = (
            column.event(
                noise_multiplier=1.0,
                separation=separation,
                rounds=workload.steps,
                participations=participations,
            ).sensitivity
            for column in (self, ToeplitzColumn(coefficients=(1.0,)))
        )
        return math.sqrt(left) * own / independent


def separated_bands(*, workload: Workload, separation: int) -> ToeplitzColumn:
    """The banded C that leaves a workload least noise, of at most `separation` bands.

    No row of C·G then holds two rounds of one unit's, so that each costs one Gaussian. Where the
    best column would increase somewhere, each number is cut to the one before it.

    >>> separated_bands(workload=Workload.constant(steps=10), separation=2).coefficients
    (0.87602, 0.48226)
    """
    bands = whole("separation", separation)
    found = optimal_coefficients(workload=workload, bands=bands)
    falling = np.minimum.accumulate(np.maximum(found, 0.0))
    return ToeplitzColumn(coefficients=tuple(falling.tolist()))


def optimal_buffers(
    *,
    workload: Workload,
    separation: int,
    buffers: int = 2,
    participations: int | None = None,
) -> ToeplitzColumn:
    """The buffers that leave a workload least noise for what they cost.

    Minimises S² times the mean square of C⁻¹z in the workload over weights >= 0 and decays in
    [0, 1); the column then has norm 1 over the workload's rounds.

    Args:
        workload: what the run makes of its noise.
        separation: b, how far apart one unit's rounds are.
        buffers: how many, at least 1.
        participations: k, if a unit's rounds are counted and limited.

    Raises:
        ValueError: a number is no whole one above 0.

    Source: McMahan et al. 2024 (arXiv 2404.16706).

    >>> course = Workload.constant(steps=20)
    >>> found = optimal_buffers(workload=course, separation=5, buffers=1)
    >>> found.kept, round(found.relative_error(workload=course, separation=5), 2)
    (1, 0.65)
    """
    from scipy.optimize import minimize

    buffers = whole("buffers", buffers)
    table, steps = NoiseTable(workload), workload.steps
    most = -(-steps // whole("separation", separation))
    turns = most if participations is None else min(most, participations)

    def loss(free: Series) -> float:
        column = _column(*_admissible(free)).series(steps)
        with np.errstate(all="ignore"):
            value = table.mean_square(inverse_series(column))
            value *= _square(column, separation, turns)
        return math.log(value) if 0 < value < math.inf else _UNBOUNDED

    start = np.concatenate([np.zeros(buffers), np.linspace(0.5, 4.0, buffers)])
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(-12, 12)] * len(start))
    weights, decays = _admissible(found.x)
    cut = _column(_cut(weights), _cut(decays))
    scale = 1 / float(np.linalg.norm(cut.series(steps)))
    scaled = _cut(np.array(cut.weights) * scale)
    # Cutting must not leave the column increasing.
    first = max(*_cut(np.array([scale])), math.fsum(scaled))
    return ToeplitzColumn(coefficients=(first,), weights=tuple(scaled), decays=cut.decays)


def _column(weights: Series | list[float], decays: Series | list[float]) -> ToeplitzColumn:
    return ToeplitzColumn(
        coefficients=(1.0,),
        weights=tuple(float(w) for w in weights),
        decays=tuple(float(d) for d in decays),
    )


def _admissible(free: Series) -> tuple[Series, Series]:
    """Weights that add up to less than 1, and decays below it, of any numbers."""
    half = len(free) // 2
    grown = np.exp(free[:half])
    return grown / (1 + grown.sum()), 1 / (1 + np.exp(-free[half:]))


def _square(column: Series, separation: int, turns: int) -> float:
    """S² over all rounds, of rounds 0, b, 2b … up to so many."""
    moved = np.zeros_like(column)
    for start in range(0, turns * separation, separation):
        moved[start:] += column[: len(column) - start]
    return float(moved @ moved)


def _cut(values: Series) -> list[float]:
    """Towards 0."""
    return [math.trunc(v * 10**_DECIMALS) / 10**_DECIMALS for v in values.tolist()]
