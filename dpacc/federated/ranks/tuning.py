"""What ranks and compressions a federation can afford, and how much signal its noise leaves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from dpacc_accounting import Calibration, calibrate_noise

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.compressed_updates import BLOCK, payload_bytes
from dpacc.federated.updates.compression import Compression

RANKS = (1, 2, 4, 8, 16, 32, 64)

COMPRESSIONS: tuple[Compression | None, ...] = (
    None,
    Compression(bits=8),
    Compression(bits=4),
    *(Compression(bits=4, keep=keep, selection="random") for keep in (0.5, 0.25, 0.1, 0.05)),
)
"""Those without bias, the finest first. Where noise rules, the largest numbers are mostly noise."""


_calibrated = lru_cache(maxsize=1024)(calibrate_noise)
# Clients are often alike.


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """Of what size an adapter is at each rank.

    Args:
        layers: outputs, inputs and count of each kind of adapted layer.
        both: whether A is trained, and sent, too.
        others: numbers trained at every rank, such as a head's.

    >>> AdapterShape(layers=((576, 576, 30), (192, 576, 30))).trained(8)
    184320
    """

    layers: tuple[tuple[int, int, int], ...]
    both: bool = False
    others: int = 0

    def trained(self, rank: int) -> int:
        """How many numbers are trained, noised and sent: r·Σ outputs, or r·Σ (outputs + inputs)."""
        return self.others + sum(
            rank * count * (outputs + (inputs if self.both else 0))
            for outputs, inputs, count in self.layers
        )


@dataclass(frozen=True, kw_only=True)
class Participant:
    """One client and the noise that its budget asks for.

    Args:
        name: of the client.
        batch_size: B, expected.
        steps_per_round: local steps.
        noise: σ and all steps T, calibrated.
    """

    name: str
    batch_size: int
    steps_per_round: int
    noise: Calibration


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One rank and compression.

    Args:
        rank: r.
        compression: of updates.
        trained: d, numbers trained.
        upload_bytes: that one client sends in a round, without the frame of its message.
        download_bytes: that it receives.
        signal_to_noise: as in `signal_to_noise`.
        update_signal: as in `update_signal`, of the client in the middle.
    """

    rank: int
    compression: Compression | None
    trained: int
    upload_bytes: int
    download_bytes: int
    signal_to_noise: float
    update_signal: float


def participant(
    *,
    name: str,
    dataset_size: int,
    batch_size: int,
    rounds: int,
    local_epochs: float,
    epsilon: float,
    delta: float,
) -> Participant:
    """A client whose σ keeps its ε over all rounds, as `DPLoRAClient` calibrates it."""
    per_round = math.ceil(local_epochs * dataset_size / batch_size)
    noise = _calibrated(
        dataset_size=dataset_size,
        batch_size=batch_size,
        steps=rounds * per_round,
        epsilon=epsilon,
        delta=delta,
    )
    return Participant(name=name, batch_size=batch_size, steps_per_round=per_round, noise=noise)


def signal_to_noise(
    clients: Sequence[Participant], *, trained: int, compression: Compression | None
) -> float:
    """Σ BᵢTᵢ / √(d·(1 + ω)·Σ σᵢ²Tᵢ): over the whole run, the most that signal can be of noise.

    The numerator is the length, in units of C, of the sum of all clipped gradients if every one
    had norm C and pointed the same way; the denominator that of all noise together, of which each
    coordinate of a step's sum has standard deviation σᵢ·C. Compression adds ω of the variance of
    what it is given (`added_variance`).
    """
    signal = sum(each.batch_size * each.noise.steps for each in clients)
    noise = sum(each.noise.noise_multiplier**2 * each.noise.steps for each in clients)
    return signal / math.sqrt(trained * (1 + added_variance(compression)) * noise)


def update_signal(
    clients: Sequence[Participant], *, trained: int, compression: Compression | None
) -> float:
    """B·√t / (σ·√(d·(1 + ω))) of the client in the middle: the most in one update of one round.

    It is what `signal_to_noise` is of all rounds together, for one client's t steps of a round; a
    rule that compares single updates has no more to go by.

    Args:
        clients: all that take part.
        trained: d, the numbers that each of them trains.
        compression: of what they send; none where its variance is not known beforehand.

    >>> alone = participant(name="a", dataset_size=4000, batch_size=400, rounds=5, local_epochs=1.0,
    ...                     epsilon=8.0, delta=1e-5)
    >>> round(update_signal([alone], trained=184_320, compression=None), 2)
    3.67
    """
    width = trained * (1 + added_variance(compression))
    return statistics.median(
        each.batch_size * math.sqrt(each.steps_per_round / width) / each.noise.noise_multiplier
        for each in clients
    )


def added_variance(compression: Compression | None) -> float:
    """ω: E‖error‖² over ‖x‖² for a vector of equal normal numbers, by the bound on its rounding.

    Blocks of 1024 normal numbers reach √(2·ln 1024) standard deviations, of which a code is one
    part in 127 or 7; rounding adds at most a quarter of its square. Of random places, n/k counts.

    >>> round(added_variance(Compression(bits=8)), 6)
    0.000215
    >>> round(added_variance(Compression(bits=4, keep=0.1, selection="random")), 2)
    9.71
    """
    if compression is None:
        return 0.0
    if compression.sends_places or compression.limit is not None:
        raise ConfigurationError(
            "only compressions without bias and limit have a variance known beforehand"
        )
    rounding = 0.0
    if compression.bits < 32:
        rounding = 2 * math.log(BLOCK) / compression.levels**2 / 4
    return (1 + rounding) / compression.keep - 1


def proposals(
    *,
    shape: AdapterShape,
    clients: Sequence[Participant],
    upload_bytes: float,
    download_bytes: float = math.inf,
    ranks: Sequence[int] = RANKS,
) -> tuple[Proposal, ...]:
    """Every rank and compression that fits, by rank and then by signal to noise.

    Raises:
        ConfigurationError: nothing fits.
    """
    found = [
        _proposal(shape, clients, rank, compression)
        for rank in sorted(set(ranks))
        for compression in COMPRESSIONS
    ]
    fitting = tuple(
        each
        for each in found
        if each.upload_bytes <= upload_bytes and each.download_bytes <= download_bytes
    )
    if not fitting:
        least = min(found, key=lambda each: each.upload_bytes)
        raise ConfigurationError(
            f"nothing fits: rank {least.rank} sends at least {least.upload_bytes:,} bytes and "
            f"receives {least.download_bytes:,}; allow more, or adapt fewer layers"
        )
    return fitting


def recommended(found: Sequence[Proposal], *, least_signal: float) -> Proposal:
    """The largest rank whose signal-to-noise reaches `least_signal`, at its best compression.

    Where none does, the proposal with the most signal: there noise, not rank, is what limits.
    """
    good = [each for each in found if each.signal_to_noise >= least_signal]
    if not good:
        return max(found, key=lambda each: each.signal_to_noise)
    rank = max(each.rank for each in good)
    return max((e for e in good if e.rank == rank), key=lambda each: each.signal_to_noise)


def _proposal(
    shape: AdapterShape,
    clients: Sequence[Participant],
    rank: int,
    compression: Compression | None,
) -> Proposal:
    trained = shape.trained(rank)
    return Proposal(
        rank=rank,
        compression=compression,
        trained=trained,
        upload_bytes=payload_bytes(compression, count=trained),
        download_bytes=payload_bytes(None, count=trained),
        signal_to_noise=signal_to_noise(clients, trained=trained, compression=compression),
        update_signal=update_signal(clients, trained=trained, compression=compression),
    )
