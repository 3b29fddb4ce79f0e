"""What trials say of a target, and how often they are wrong."""

from __future__ import annotations

import math
import random

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.ranks.tuning import Proposal
from dpacc.federated.trials.candidates import Candidate
from dpacc.federated.trials.quality import Quality, balanced
from dpacc.federated.trials.worth_taking import worth_taking


def candidate(sent: int) -> Candidate:
    proposal = Proposal(
        rank=sent, compression=None, trained=sent, upload_bytes=sent, download_bytes=sent,
        signal_to_noise=1.0,
        update_signal=1.0,
    )  # fmt: skip
    return Candidate(proposal=proposal, batch_size=8)


def found(*values: float, error: float = 0.01) -> list[Quality]:
    return [Quality(value=each, error=error) for each in values]


def test_the_fewest_bytes_that_reach_the_target_are_named() -> None:
    """One that falls short is passed over, however little it sends; none is named where all do."""
    tried = [
        (candidate(30), found(0.90, 0.91)),
        (candidate(20), found(0.89, 0.90)),
        (candidate(10), found(0.70, 0.71)),
    ]
    verdict = worth_taking(tried, target=0.8)
    assert verdict.smallest is not None
    assert verdict.smallest.candidate == tried[1][0]
    assert verdict.smallest.confidence is not None
    assert verdict.smallest.confidence >= verdict.needed == pytest.approx(1 - 0.05 / 3)
    assert verdict.best.candidate == tried[0][0]
    assert worth_taking(tried, target=0.95).smallest is None


def test_the_error_is_of_seeds_and_of_held_out_records() -> None:
    """√(s²/seeds + e²), with s² pooled over candidates: more seeds never take e away."""
    tried = [(candidate(1), found(0.5, 0.6)), (candidate(2), found(0.7, 0.7))]
    first, second = worth_taking(tried, target=None).expectations
    pooled = (0.005 + 0.0) / 2
    assert first.error == pytest.approx(math.sqrt(pooled / 2 + 0.01**2))
    assert first.error == second.error
    assert first.seeds_known
    assert first.confidence is None
    many = worth_taking([(candidate(1), found(*[0.5] * 50))], target=None).best
    assert many.error == pytest.approx(0.01)


def test_one_seed_says_that_it_knows_nothing_of_seeds() -> None:
    """Its error is that of the held-out records alone."""
    alone = worth_taking([(candidate(1), found(0.5))], target=0.4).best
    assert not alone.seeds_known
    assert alone.error == pytest.approx(0.01)
    with pytest.raises(ConfigurationError, match="no candidate"):
        worth_taking([], target=0.5)


def test_figures_without_a_spread_are_sure_of_nothing() -> None:
    """Equal seeds of records without an error: above, at and below the target nothing is named."""
    for target in (0.4, 0.5, 0.6):
        verdict = worth_taking([(candidate(1), found(0.5, 0.5, error=0.0))], target=target)
        assert verdict.smallest is None
        assert verdict.best.confidence == verdict.best.error == 0
    assert worth_taking([(candidate(1), found(0.5, error=0.0))], target=None).best.value == 0.5


def test_a_target_that_nobody_reaches_is_seldom_claimed() -> None:
    """Of 400 searches over five candidates that all miss it by nothing, about 5% name one."""
    draw, wrong = random.Random(1), 0
    for _ in range(400):
        tried = []
        for sent in range(1, 6):
            shift = draw.gauss(0, 0.02)
            seeds = [0.7 + shift + draw.gauss(0, 0.03) for _ in range(2)]
            tried.append((candidate(sent), found(*seeds, error=0.02)))
        wrong += worth_taking(tried, target=0.7).smallest is not None
    assert wrong <= 36


def test_the_binomial_error_is_what_chance_does() -> None:
    """2,000 held-out sets of 60: the spread of balanced accuracies, within a tenth."""
    draw, values, errors = random.Random(2), [], []
    for _ in range(2000):
        true = [0] * 40 + [1] * 20
        guesses = [t if draw.random() < (0.9 if t else 0.6) else 1 - t for t in true]
        quality = balanced(guesses, true)
        values.append(quality.value)
        errors.append(quality.error)
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((each - mean) ** 2 for each in values) / len(values))
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.1)
    assert balanced([1] * 9, [1] * 9).error > 0
