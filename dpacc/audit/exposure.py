"""Exposure: how many bits of a secret a model gives away to someone who tries candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpacc.audit.verdict import Scores
from dpacc.errors import ConfigurationError

_DIGITS = "0123456789"


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What a model's losses say about one secret.

    Args:
        bits: −log₂ of the share of candidates that the model likes at least as well as the secret.
            About 1 for a secret that it knows nothing of: E[−log₂ U] = 1/ln 2.
        most: what could have been seen with so many candidates, log₂(n + 1).
        candidates: n.
        guesses: how many tries would find the secret, on average, in the whole space.
        space: how many secrets of this form there are.
    """

    bits: float
    most: float
    candidates: int
    guesses: float
    space: int


def exposure(*, secret: float, candidates: Scores, space: int) -> Exposure:
    """log₂|R| − log₂ rank of a secret among all of R, estimated from candidates drawn from R.

    The rank's share of R is taken to be that among secret and candidates, (k + 1)/(n + 1): of a
    secret that the model never saw, b bits are estimated with probability at most 2^−b.

    Args:
        secret: the loss of the secret.
        candidates: [n], the losses of others of the same form, drawn uniformly.
        space: |R|.

    Source: Carlini et al. 2019 (arXiv 1802.08232), definition 4 and section 4.3.

    >>> round(exposure(secret=1.0, candidates=np.linspace(2, 3, 1023), space=10**6).bits, 3)
    10.0
    """
    if not len(candidates) or not np.isfinite([secret, *candidates]).all():
        raise ConfigurationError("exposure needs finite losses of at least one candidate")
    tried = len(candidates) + 1
    as_likely = int((candidates <= secret).sum()) + 1
    return Exposure(
        bits=math.log2(tried / as_likely),
        most=math.log2(tried),
        candidates=len(candidates),
        guesses=max(1.0, space * as_likely / tried),
        space=space,
    )


def other_digits(*, secret: str, candidates: int, seed: int = 0) -> tuple[list[str], int]:
    """Candidates that differ from `secret` in their digits, and how many such texts there are.

    Raises:
        ConfigurationError: the text has no digit.

    >>> other_digits(secret="my code is 4182", candidates=2)[1]
    10000
    """
    digits = sum(letter in _DIGITS for letter in secret)
    if not digits:
        raise ConfigurationError(
            f"{secret!r} has no digits; write the secret part of it in digits, as in 'code 4182'"
        )
    drawn = np.random.default_rng(seed).integers(10, size=(candidates, digits))
    return [_with_digits(secret, row.tolist()) for row in drawn], 10**digits


def _with_digits(text: str, digits: list[int]) -> str:
    left = iter(digits)
    return "".join(str(next(left)) if letter in _DIGITS else letter for letter in text)
