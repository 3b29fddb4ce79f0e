"""How good a model is on held-out records, and how far chance may have moved that figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpacc.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A figure from 0 to 1, more being better, and its standard error.

    Args:
        value: what was found.
        error: of the held-out records alone, which other records of the same kind would move.
    """

    value: float
    error: float

    def to_json(self) -> dict[str, float]:
        """As plain data."""
        return {"value": self.value, "error": self.error}


def balanced(predicted: Sequence[int], true: Sequence[int]) -> Quality:
    """The share of each class that is found, averaged over classes, with its binomial error.

    Var = Σ p̃(1 − p̃)/n over classes, over their number squared; p̃ = (found + 1)/(n + 2), so that a
    class that is found whole has an error, too (Agresti & Coull 1998).

    >>> found = balanced([1, 1, 0, 0, 0, 1], [1, 1, 1, 0, 0, 0])
    >>> round(found.value, 3), round(found.error, 3)
    (0.667, 0.2)
    """
    pairs = list(zip(predicted, true, strict=True))
    if not pairs:
        raise ConfigurationError("no held-out record has a label to predict")
    shares, variance = [], 0.0
    for label in sorted(set(true)):
        guesses = [guess == label for guess, truth in pairs if truth == label]
        shares.append(sum(guesses) / len(guesses))
        likely = (sum(guesses) + 1) / (len(guesses) + 2)
        variance += likely * (1 - likely) / len(guesses)
    return Quality(value=sum(shares) / len(shares), error=math.sqrt(variance) / len(shares))


def token_likelihood(losses: Sequence[float]) -> Quality:
    """1/perplexity of records of equal weight, e^−mean(ℓ), with the error of that mean.

    Args:
        losses: ℓ of each record, −log p of a token on average.

    >>> found = token_likelihood([2.0, 2.2, 1.8])
    >>> round(found.value, 4), round(found.error, 4)
    (0.1353, 0.0156)
    """
    if len(losses) < 2:
        raise ConfigurationError(f"{len(losses)} held-out records tell of no error: hold out more")
    mean = sum(losses) / len(losses)
    spread = sum((each - mean) ** 2 for each in losses) / (len(losses) - 1)
    value = math.exp(-mean)
    return Quality(value=value, error=value * math.sqrt(spread / len(losses)))


def mean_of_kinds(kinds: Mapping[str, Quality]) -> Quality:
    """The mean over kinds of text, each counting alike.

    >>> mean_of_kinds({"a": Quality(value=0.5, error=0.3), "b": Quality(value=1, error=0.4)})
    Quality(value=0.75, error=0.25)
    """
    variance = sum(each.error**2 for each in kinds.values())
    value = sum(each.value for each in kinds.values()) / len(kinds)
    return Quality(value=value, error=math.sqrt(variance) / len(kinds))


def read_quality(document: Mapping[str, Any]) -> Quality:
    """Read what `to_json` wrote."""
    return Quality(value=float(document["value"]), error=float(document["error"]))
