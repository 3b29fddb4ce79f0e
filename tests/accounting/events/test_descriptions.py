import math

import pytest
from dpacc_accounting import (
    ZCDP,
    AdaptivelyClipped,
    ApproximateDP,
    Composed,
    CyclicPoissonSampled,
    DiscreteGaussian,
    DiscreteLaplace,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Ledger,
    Mixture,
    MixtureOfGaussians,
    PermuteAndFlip,
    PoissonSampled,
    RandomizedResponse,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    SeparatedParticipation,
    Shuffled,
    Skellam,
    TruncatedDiscreteGaussian,
    TruncatedPoissonSampled,
    read_ledger,
    statement,
)
from dpacc_accounting.events.descriptions import described
from dpacc_accounting.events.documents import _KINDS

from tests.accounting.ledger.ledgers import PLAN, STEP

NOISY = Gaussian(noise_multiplier=1.5)
WORDS = [
    (NOISY, "Gaussian noise of multiplier 1.5"),
    (AdaptivelyClipped(noise_multiplier=5, count_noise=1.875), "one Gaussian of multiplier 3"),
    (PoissonSampled(probability=0.25, event=NOISY), "each patient joins with probability 0.25"),
    (
        TruncatedPoissonSampled(probability=0.1, largest_batch=8, dataset_size=50, event=NOISY),
        "each of 50 patients joins with probability 0.1, cut to at most 8 of them",
    ),
    (SampledWithoutReplacement(sample_size=3, dataset_size=9, event=NOISY), "3 of 9 patients"),
    (RandomlyAllocated(steps=7, event=NOISY), "7 steps, every patient in exactly one"),
    (Shuffled(event=NOISY), "shuffled order"),
    (Repeated(event=NOISY, times=12), "12 times"),
    (Composed(events=(NOISY, Laplace(noise_multiplier=2))), "; and a number with Laplace noise"),
    (Composed(events=()), "nothing"),
    (Mixture(weights=(0.25, 0.75), events=(NOISY, Composed(events=()))), "; or with chance 0.75"),
    (Selected(event=NOISY, mean_runs=9, shape=1), "the best of 9 runs on average"),
    (Selected(event=NOISY, mean_runs=9, shape=math.inf), "their number Poisson"),
    (Selected(event=NOISY, mean_runs=9, shape=0.5), "binomial of shape 0.5"),
    (Laplace(noise_multiplier=2), "Laplace noise of multiplier 2"),
    (DiscreteGaussian(sigma=3, sensitivity=2), "an integer of sensitivity 2"),
    (Skellam(variance=30, sensitivity=2), "Skellam noise of variance 30"),
    (ExponentialMechanism(epsilon=0.5), "bounded range 0.5"),
    (ApproximateDP(epsilon=0.5, delta=1e-6), "anything that is (0.5, 1e-06)-private"),
    (RandomizedResponse(noise=0.4, options=3), "one of 3 answers, with chance 0.4 a uniform one"),
    (DiscreteLaplace(decay=0.3, sensitivity=2), "discrete Laplace noise, decay 0.3"),
    (ZCDP(rho=0.125), "anything that is 0.125-zCDP"),
    (ZCDP(rho=0.125, xi=0.5), "0.125-zCDP with ξ = 0.5"),
    (
        RandomlyAllocated(steps=7, participations=3, event=NOISY),
        "7 steps, every patient in exactly 3 of them",
    ),
    (
        CyclicPoissonSampled(probability=0.2, groups=4, steps=10, event=NOISY),
        "each patient of one of 4 groups joins with probability 0.2, group after group",
    ),
    (
        SeparatedParticipation(
            noise_multiplier=4, separation=2, rounds=3, after=4, coefficients=(0.8, 0.6)
        ),
        "in 3 rounds, after 4 before them, of which each patient takes part in any at least 2 "
        "apart: a clipped sum with Gaussian noise of multiplier 4, correlated between rounds by 2 "
        "bands: together one Gaussian of multiplier 3.12348",
    ),
    (PermuteAndFlip(epsilon=0.7), "permute-and-flip at 0.7"),
    (
        MixtureOfGaussians(noise_multiplier=3, weights=(0.25, 0.75), sensitivities=(2, 0)),
        "multiplier 3, moved by 2C (0.25)",
    ),
    (
        MixtureOfGaussians(noise_multiplier=3, weights=(1.0,), sensitivities=(0.0,)),
        "moved by nothing",
    ),
    (TruncatedDiscreteGaussian(sigma=3, sensitivity=2, bound=9), "Gaussian noise 3, never above 9"),
]


@pytest.mark.parametrize(("event", "words"), WORDS, ids=lambda value: type(value).__name__)
def test_an_event_in_words(event, words):
    """Its numbers, and whom it is about."""
    assert words in described(event=event, unit="patient")


def test_every_kind_of_event_has_words():
    """None was left out above."""
    assert {type(event) for event, _ in WORDS} == set(_KINDS.values())


def test_a_statement_names_what_was_not_the_plans_step(tmp_path):
    """Other releases are told apart and described; a search that is charged is no gap any more."""
    cut = TruncatedPoissonSampled(probability=0.1, largest_batch=8, dataset_size=50, event=NOISY)
    search = Selected(event=Repeated(event=STEP, times=5), mean_runs=4, shape=1)
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        for step, event in enumerate([STEP, cut, cut]):
            book.charge(step=step, event=event)
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    said = statement(plan=PLAN, record=record)
    assert "2 releases are not the plan's step" in said
    assert "- 2 × on a Poisson sample that each of 50" in said
    assert "privacy that is not counted here" in said
    assert "Amplification by sampling:** counted" in said
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        book.charge(step=3, event=search)
    said = statement(plan=PLAN, record=read_ledger(path=tmp_path / "ledger.jsonl"))
    assert "The search that this ledger charges is counted" in said
    assert "Rényi" in said or "RDP" in said
