"""Which candidate reaches a target with the fewest bytes, and how surely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, variance

from scipy.special import stdtr

from dpacc.errors import ConfigurationError
from dpacc.federated.trials.candidates import Candidate
from dpacc.federated.trials.quality import Quality

_NEARLY_NORMAL = 1e6


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a candidate is expected to reach on new records with new noise.

    Args:
        candidate: which.
        qualities: of its trials, one a seed.
        value: their mean.
        error: its standard error: √(s²/seeds + e²), where e is that of the held-out records, which
            all seeds share, and s² how far seeds lie apart, pooled over candidates.
        seeds_known: whether s² is in it; one seed tells nothing of it.
        confidence: that the expected quality reaches the target, by Student's t; None without one.
            0 where the error is: chance moves every figure, so that one without a spread tells
            nothing of how far.
    """

    candidate: Candidate
    qualities: tuple[Quality, ...]
    value: float
    error: float
    seeds_known: bool
    confidence: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all trials say.

    Args:
        expectations: of each candidate.
        target: the quality that was asked for.
        needed: the confidence that one of so many candidates needs, so that the chance that any
            passes wrongly is at most 1 − the confidence that was asked for (Bonferroni).
        smallest: the one that sends least of those that pass; None where none does.
    """

    expectations: tuple[Expectation, ...]
    target: float | None
    needed: float
    smallest: Expectation | None

    @property
    def best(self) -> Expectation:
        """The one that is expected to do best, target or not."""
        return max(self.expectations, key=lambda each: each.value)


def worth_taking(
    tried: Sequence[tuple[Candidate, Sequence[Quality]]],
    *,
    target: float | None,
    confidence: float = 0.95,
) -> Verdict:
    """Judge candidates by their trials.

    Args:
        tried: each candidate with the qualities that its seeds found on the same held-out records.
        target: the quality to reach, from 0 to 1.
        confidence: that no candidate that is named misses it.

    Raises:
        ConfigurationError: nothing was tried.
    """
    if not tried:
        raise ConfigurationError("no candidate was tried")
    free = sum(len(found) - 1 for _, found in tried)
    apart = sum(
        (len(found) - 1) * variance([each.value for each in found])
        for _, found in tried
        if len(found) > 1
    )
    pooled = apart / free if free else 0.0
    expectations = tuple(
        _expected(candidate, tuple(found), pooled=pooled, free=free, target=target)
        for candidate, found in tried
    )
    needed = 1 - (1 - confidence) / len(expectations)
    passing = [each for each in expectations if each.confidence and each.confidence >= needed]
    smallest = min(passing, key=_bytes, default=None)
    return Verdict(expectations=expectations, target=target, needed=needed, smallest=smallest)


def _expected(
    candidate: Candidate,
    found: tuple[Quality, ...],
    *,
    pooled: float,
    free: int,
    target: float | None,
) -> Expectation:
    value = mean(each.value for each in found)
    by_seeds = pooled / len(found)
    by_records = mean(each.error**2 for each in found)
    error = math.sqrt(by_seeds + by_records)
    # Welch and Satterthwaite: the records' part counts as known.
    degrees = _NEARLY_NORMAL
    if by_seeds:
        degrees = min(degrees, free * (by_seeds + by_records) ** 2 / by_seeds**2)
    sure = None if target is None else 0.0
    if target is not None and error:
        sure = float(stdtr(degrees, (value - target) / error))
    return Expectation(
        candidate=candidate,
        qualities=found,
        value=value,
        error=error,
        seeds_known=free > 0,
        confidence=sure,
    )


def _bytes(expectation: Expectation) -> int:
    return expectation.candidate.proposal.upload_bytes
