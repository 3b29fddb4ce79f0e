"""Ranks, compressions and batches near the one that the formula proposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpacc.federated.ranks.tuning import Proposal, recommended


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One rank and compression, and the batch that decides the noise.

    Args:
        proposal: rank and compression, with what the formula says of them.
        batch_size: B, expected; at a client's ε it fixes σ and the number of steps.
    """

    proposal: Proposal
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        """What was chosen, as plain data."""
        compression = self.proposal.compression
        return {
            "rank": self.proposal.rank,
            "compression": None if compression is None else compression.to_json(),
            "batch_size": self.batch_size,
        }


def batches_around(batch_size: int, *, sizes: Sequence[int]) -> tuple[int, ...]:
    """Half of B, B and twice B, where every client has as many examples.

    >>> batches_around(100, sizes=[150, 900])
    (50, 100)
    """
    found = (max(1, batch_size // 2), batch_size, 2 * batch_size)
    return tuple(dict.fromkeys(each for each in found if each <= min(sizes)))


def around(
    best: Candidate,
    *,
    proposals: Mapping[int, Sequence[Proposal]],
    least_signal: float,
    most: int,
) -> tuple[Candidate, ...]:
    """The formula's proposal, and others that send half as much, a quarter and so on.

    At each size the largest rank that has enough signal, by compression, and the largest that needs
    no compression; and the proposal itself with less noise from larger batches, and with more steps
    of smaller ones.

    Args:
        best: the proposal.
        proposals: all that fit, by the batch size.
        least_signal: as in `recommended`.
        most: how many are worth a try.
    """
    own, found = proposals[best.batch_size], [best]
    limit, halved = best.proposal.upload_bytes / 2, []
    while fitting := [each for each in own if each.upload_bytes <= limit]:
        halved.append(recommended(fitting, least_signal=least_signal))
        halved += sorted((e for e in fitting if e.compression is None), key=_rank)[-1:]
        limit /= 2
    smaller = [Candidate(proposal=each, batch_size=best.batch_size) for each in halved]
    other_noise = [
        Candidate(proposal=each, batch_size=batch)
        for batch in sorted(set(proposals) - {best.batch_size}, reverse=True)
        for each in proposals[batch]
        if (each.rank, each.compression) == (best.proposal.rank, best.proposal.compression)
    ]
    found += [*smaller[:2], *other_noise, *smaller[2:]]
    return tuple(dict.fromkeys(found))[:most]


def _rank(proposal: Proposal) -> int:
    return proposal.rank
