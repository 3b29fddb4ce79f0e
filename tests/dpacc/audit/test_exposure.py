"""Exposure counts bits: none for a secret never seen, all of them for one learned by heart."""

from __future__ import annotations

import numpy as np
import pytest

from dpacc.audit.exposure import exposure, other_digits
from dpacc.errors import ConfigurationError


def test_an_unknown_secret_is_rarely_exposed() -> None:
    """Among losses of its own kind: 1.44 bits on average, 5 bits in at most 1 of 32 cases."""
    rng = np.random.default_rng(0)
    bits = np.array(
        [
            exposure(secret=rng.normal(), candidates=rng.normal(size=255), space=10**6).bits
            for _ in range(2000)
        ]
    )
    assert bits.mean() == pytest.approx(1.44, abs=0.1)
    assert (bits >= 5).mean() <= 1 / 32 + 0.01


def test_a_secret_learned_by_heart_is_fully_exposed() -> None:
    """Below every candidate: as many bits as the candidates can show, and few tries are left."""
    found = exposure(secret=0.0, candidates=np.ones(1023), space=10_000)
    assert found.bits == found.most == 10
    assert found.guesses == pytest.approx(10_000 / 1024)
    worst = exposure(secret=2.0, candidates=np.ones(1023), space=10_000)
    assert worst.bits == 0
    assert worst.guesses == 10_000


def test_candidates_differ_in_digits_alone() -> None:
    """Same words, same places, other digits; how many there are is told."""
    made, space = other_digits(secret="door 12, code 345!", candidates=500, seed=1)
    assert space == 10**5
    assert len({*made}) > 490
    for each in made:
        assert each.translate(str.maketrans("0123456789", "#" * 10)) == "door ##, code ###!"


def test_what_has_no_exposure_is_refused() -> None:
    """A text without digits, and losses that are not finite."""
    with pytest.raises(ConfigurationError, match="no digits"):
        other_digits(secret="my code", candidates=3)
    for candidates in (np.zeros(0), np.array([np.inf])):
        with pytest.raises(ConfigurationError, match="finite"):
            exposure(secret=1.0, candidates=candidates, space=10)
