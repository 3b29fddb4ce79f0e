"""From scores to a verdict, for any trainer: a function from canaries to scores is enough."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dpacc_accounting import Gaussian, PoissonSampled, Repeated

from dpacc.audit import Claim, audit_trainer, judge, projections
from dpacc.errors import ConfigurationError

DELTA = 1e-5
ONCE = Claim.of_event(event=Gaussian(noise_multiplier=1.0), delta=DELTA)


def somebody_elses_trainer(
    included: np.ndarray, *, noise: float, rng: np.random.Generator, steps: int = 5
) -> np.ndarray:
    """DP-SGD in numpy: unit gradients along random orthonormal directions, summed and noised."""
    width = 2 * len(included)
    directions = np.linalg.qr(rng.standard_normal((width, len(included))))[0].T
    total = included @ directions
    released = [total + noise * rng.standard_normal(width) for _ in range(steps)]
    return projections(gradients=released, directions=directions)


@pytest.mark.parametrize(("noise", "refuted"), [(5**0.5, False), (0.6 * 5**0.5, True)])
def test_a_foreign_trainer_is_judged_by_its_released_gradients(noise: float, refuted: bool) -> None:
    """Five steps at σ = √5 are one at σ = 1: that noise passes, six tenths of it does not."""
    rng = np.random.default_rng(0)
    audit = audit_trainer(
        train=lambda included: somebody_elses_trainer(included, noise=noise, rng=rng),
        canaries=500,
        claim=ONCE,
        threshold=2.5,
        seed=0,
    )
    assert audit.refuted is refuted
    assert audit.independent_epsilon is not None
    assert audit.independent_epsilon > 0.4 * audit.claim.epsilon


def test_scores_that_are_all_alike_prove_nothing() -> None:
    """A trainer that gives nothing away is not accused by the order of its canaries."""
    included = np.random.default_rng(0).random(200) < 0.5
    audit = judge(included=included, scores=np.zeros(200), claim=ONCE)
    assert audit.epsilon == 0
    assert not audit.refuted


def test_an_honest_trainer_is_accused_no_more_often_than_stated() -> None:
    """At confidence 80%, of 200 runs of the very mechanism that is claimed, at most 20% fail."""
    rng = np.random.default_rng(1)
    accused = sum(
        audit_trainer(
            train=lambda included: included + rng.standard_normal(len(included)),
            canaries=60,
            claim=ONCE,
            confidence=0.8,
            threshold=0.5,
            seed=run,
        ).refuted
        for run in range(200)
    )
    assert accused <= 40


def test_a_sampled_claim_is_tested_by_its_own_curve() -> None:
    """Scores of full participation refute a claim of sampling that has the same σ."""
    event = Repeated(event=PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.0)),
                     times=4)  # fmt: skip
    claim = Claim.of_event(event=event, delta=DELTA)
    assert claim.guarantee.epsilon < 4
    rng = np.random.default_rng(2)
    audit = audit_trainer(
        train=lambda included: 4 * included + 2 * rng.standard_normal(len(included)),
        canaries=400,
        claim=claim,
        seed=0,
    )
    assert audit.refuted


def test_a_bare_epsilon_can_be_tested_too() -> None:
    """Full disclosure refutes ε = 3; random scores refute nothing and prove nothing."""
    claim = Claim.of_epsilon(epsilon=3.0, delta=DELTA)
    told = audit_trainer(train=lambda included: included, canaries=300, claim=claim, seed=0)
    assert told.refuted
    assert told.epsilon > 3
    rng = np.random.default_rng(3)
    silent = audit_trainer(
        train=lambda included: rng.standard_normal(len(included)),
        canaries=300,
        claim=claim,
        seed=0,
    )
    assert (silent.refuted, silent.epsilon, silent.independent_epsilon) == (False, 0.0, None)


def test_an_audit_is_json() -> None:
    """Every number of it survives strict JSON, with the claim and the confidence."""
    audit = audit_trainer(train=lambda included: included, canaries=50, claim=ONCE, seed=0)
    document = json.loads(json.dumps(audit.to_json(), allow_nan=False))
    assert document["claim"]["epsilon"] == ONCE.guarantee.epsilon
    assert document["confidence"] == 0.95
    assert document["correct"] == document["guesses"] <= document["canaries"] == 50


@pytest.mark.parametrize(
    ("scores", "message"), [([0.0, 1.0], "one score for each"), ([0.0, np.nan, 1.0], "not finite")]
)
def test_senseless_scores_are_refused(scores: list[float], message: str) -> None:
    """As many finite scores as canaries."""
    with pytest.raises(ConfigurationError, match=message):
        judge(included=np.array([True, False, True]), scores=np.array(scores), claim=ONCE)


def test_claims_that_promise_nothing_are_refused() -> None:
    """ε must be positive and finite, δ between 0 and 1."""
    for epsilon, delta in [(0.0, DELTA), (1.0, 0.0), (1e9, DELTA), (float("nan"), DELTA)]:
        with pytest.raises(ConfigurationError, match="claim"):
            Claim.of_epsilon(epsilon=epsilon, delta=delta)
