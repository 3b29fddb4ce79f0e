"""What sharing adds to each hospital's F1, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from dpacc.errors import ConfigurationError
from dpacc.federated.healthcare.held_out_notes import Scores


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences.

    Args:
        mean: of b − a over all pairs.
        error: its standard error, s/√n.
    """

    mean: float
    error: float


def difference(a: Mapping[str, float], b: Mapping[str, float]) -> Difference:
    """By how much `b` exceeds `a`, name by name.

    Args:
        a: numbers by name.
        b: of the same names.

    Raises:
        ConfigurationError: fewer than two names, or other ones.

    >>> difference({"north": 0.1, "south": 0.3}, {"north": 0.3, "south": 0.7})
    Difference(mean=0.3, error=0.1)
    """
    if a.keys() != b.keys() or len(a) < 2:
        raise ConfigurationError(
            "differences need the same names on both sides, two of them or more"
        )
    each = [b[name] - a[name] for name in a]
    error = stdev(each) / math.sqrt(len(each))
    return Difference(mean=round(mean(each), 12), error=round(error, 12))


def f1_of(scores: Scores, kind: str = "all") -> dict[str, float]:
    """Each hospital's F1 of one kind of entity, of those that have any.

    Args:
        scores: by hospital and kind.
        kind: of entity; `all` counts every one alike.
    """
    return {
        name: each[kind].f1 for name, each in scores.items() if kind in each and each[kind].support
    }


def mean_f1(scores: Scores, kind: str = "all") -> float:
    """The mean of `f1_of`, each hospital counting alike; 0 of nothing."""
    return _mean(f1_of(scores, kind).values())


def own_and_other(alone: Mapping[str, Scores]) -> tuple[dict[str, float], dict[str, float]]:
    """What each hospital's model finds in its own notes, and on average in all others'.

    Args:
        alone: by the hospital that trained, what its model finds everywhere.
    """
    own, other = {}, {}
    for name, scores in alone.items():
        found = f1_of(scores)
        own[name] = found[name]
        other[name] = _mean(value for place, value in found.items() if place != name)
    return own, other


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return mean(listed) if listed else 0.0


def as_document(scores: Scores) -> dict[str, Any]:
    """Scores as plain data."""
    return {
        name: {kind: vars(score) for kind, score in each.items()} for name, each in scores.items()
    }
