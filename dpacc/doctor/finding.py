"""What one examination found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SIGNIFICANCE = 1e-6
"""A healthy engine fails a statistical test with at most this probability."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: what.
        healthy: whether it is as it must be.
        words: what was seen, and where it is wrong, what that means.
    """

    subject: str
    healthy: bool
    words: str

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return vars(self).copy()


def by_chance(*, subject: str, chances: dict[str, float], good: str, bad: str) -> Finding:
    """A finding from two-sided p-values: unhealthy where any is too small to be chance.

    >>> by_chance(subject="dice", chances={"sixes": 0.3}, good="fair", bad="loaded").words
    'fair'
    """
    worst = min(chances, key=lambda name: chances[name])
    healthy = chances[worst] >= SIGNIFICANCE
    words = good if healthy else f"{bad} ({worst}: p = {chances[worst]:.1g})"
    return Finding(subject=subject, healthy=healthy, words=words)
