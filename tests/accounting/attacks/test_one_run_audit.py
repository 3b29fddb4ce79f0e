"""Guesses about canaries: the bounds hold as often as they say, and lie near the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dpacc_accounting.attacks.one_run_audit import (
    Guesses,
    approximate_curve,
    best_number_of_guesses,
    chance_of_guesses,
    gaussian_curve,
    gaussian_equivalent_epsilon,
    independent_mu,
    one_run_epsilon,
    one_run_mu,
    refutes,
)
from dpacc_accounting.gaussian import gaussian_epsilon
from scipy.optimize import linprog


def guess_extremes(scores: np.ndarray, present: np.ndarray, made: int) -> Guesses:
    """The highest half of `made` scores are called present, the lowest half absent."""
    order = np.argsort(scores)
    half = made // 2
    right = int(present[order[-half:]].sum() + (~present[order[:half]]).sum())
    return Guesses(correct=right, made=2 * half, canaries=len(scores))


def gaussian_run(rng: np.random.Generator, canaries: int, mu: float, made: int) -> Guesses:
    present = rng.random(canaries) < 0.5
    return guess_extremes(present * mu + rng.standard_normal(canaries), present, made)


def test_the_bound_on_randomized_response_is_the_binomial_tail() -> None:
    """Randomized response is the worst (ε, 0)-private mechanism: 98% right of 10,000 is ε = 3.9."""
    right = round(10_000 / (1 + math.exp(-4.0)))
    guesses = Guesses(correct=right, made=10_000, canaries=10_000)
    assert 3.7 < one_run_epsilon(guesses=guesses, delta=0.0) < 4.0


def test_without_delta_the_chance_is_exact_and_delta_only_adds() -> None:
    """Ten of ten at ε = 0 has chance 2^-10; a δ makes every outcome more probable."""
    all_right = Guesses(correct=10, made=10, canaries=10)
    assert chance_of_guesses(guesses=all_right, epsilon=0.0, delta=0.0) == pytest.approx(2**-10)
    chances = [
        chance_of_guesses(guesses=all_right, epsilon=0.5, delta=d) for d in (0.0, 1e-5, 1e-3)
    ]
    assert chances[0] < chances[1] < chances[2]


def test_the_delta_term_covers_a_mechanism_that_reveals_everything_rarely() -> None:
    """With probability δ all coins are revealed, else nothing: the bound allows it, barely."""
    all_right = Guesses(correct=40, made=40, canaries=40)
    assert 1e-3 <= chance_of_guesses(guesses=all_right, epsilon=0.0, delta=1e-3) <= 4e-3


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.01), (3.0, 1e-4)])
@pytest.mark.parametrize(("right", "made", "canaries"), [(8, 8, 8), (10, 10, 20), (29, 30, 60)])
def test_the_recursion_is_the_linear_programs_optimum(
    epsilon: float, delta: float, right: int, made: int, canaries: int
) -> None:
    """The most probable P(>= c right) under the theorem's inequalities, by another solver."""
    curve = approximate_curve(epsilon=epsilon, delta=delta)
    guesses = Guesses(correct=right, made=made, canaries=canaries)
    best = most_probable(epsilon, delta, guesses)
    assert best < 0.9
    assert refutes(guesses=guesses, curve=curve, confidence=1 - 1.001 * best)
    assert not refutes(guesses=guesses, curve=curve, confidence=1 - 0.999 * best)


def most_probable(epsilon: float, delta: float, guesses: Guesses) -> float:
    """max P(>= c right) by linear programming; 1 − f is a minimum of two lines here."""
    right, made, canaries = guesses.correct, guesses.made, guesses.canaries
    counts = np.arange(made + 1)
    rows, limits = [], []
    for least in range(1, right + 1):
        hits = np.where(counts >= least, counts / canaries, 0.0)
        misses = np.where(counts >= least - 1, (made - counts) / canaries, 0.0)
        rows += [hits - math.exp(epsilon) * misses, hits - math.exp(-epsilon) * misses]
        limits += [delta, 1 - math.exp(-epsilon) * (1 - delta)]
    found = linprog(
        -(counts >= right).astype(float),
        A_ub=np.array(rows),
        b_ub=limits,
        A_eq=np.ones((1, made + 1)),
        b_eq=[1.0],
    )
    assert found.success
    return -float(found.fun)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_the_gaussian_mechanism_is_seldom_accused(mu: float) -> None:
    """At confidence 90% the true (μ; ε, δ) is exceeded in at most 10% of 300 simulated runs."""
    rng = np.random.default_rng(1)
    made = best_number_of_guesses(canaries=200, mu=mu, confidence=0.9)
    curve = gaussian_curve(mu=mu)
    truth = approximate_curve(epsilon=gaussian_epsilon(mu=mu, delta=1e-3), delta=1e-3)
    runs = [gaussian_run(rng, 200, mu, made) for _ in range(300)]
    for claim in (curve, truth):
        accused = sum(refutes(guesses=run, curve=claim, confidence=0.9) for run in runs)
        assert accused <= 30


def test_randomized_response_is_seldom_accused_and_often_nearly() -> None:
    """ε = 1 on each canary: exceeded in at most 10% of runs, and its 0.8 found in most."""
    rng = np.random.default_rng(2)
    keep = 1 / (1 + math.exp(-1.0))
    bounds = []
    for _ in range(100):
        right = int(rng.binomial(2000, keep))
        guesses = Guesses(correct=right, made=2000, canaries=2000)
        bounds.append(one_run_epsilon(guesses=guesses, delta=0.0, confidence=0.9))
    assert np.mean(np.array(bounds) > 1.0) <= 0.1
    assert np.median(bounds) > 0.8


def test_more_canaries_bring_the_gaussian_bound_closer() -> None:
    """μ = 1: the f-DP bound grows with m, beats the (ε, δ) one, and stays below the truth."""
    rng = np.random.default_rng(3)
    truth = gaussian_epsilon(mu=1.0, delta=1e-5)
    found = []
    for canaries in (100, 1_000, 10_000):
        made = best_number_of_guesses(canaries=canaries, mu=1.0)
        guesses = gaussian_run(rng, canaries, 1.0, made)
        found.append(gaussian_equivalent_epsilon(guesses=guesses, delta=1e-5, confidence=0.95))
        assert one_run_epsilon(guesses=guesses, delta=1e-5) < found[-1]
    assert found[0] < found[1] < found[2] < truth
    assert found[2] > 0.6 * truth


def test_independent_canaries_pin_mu() -> None:
    """20,000 independent scores give 94% of the true μ; it is exceeded in at most 5% of runs."""
    rng = np.random.default_rng(4)
    bounds = []
    for _ in range(200):
        missed, alarms = rng.binomial(10_000, 0.3085375387259869, size=2)
        bounds.append(
            independent_mu(
                missed=int(missed), present=10_000, false_alarms=int(alarms), absent=10_000
            )
        )
    assert np.mean(np.array(bounds) > 1.0) <= 0.05
    assert np.median(bounds) > 0.93


def test_guessing_at_random_proves_nothing() -> None:
    """Half of the guesses right: every bound is zero, as with canaries of one kind only."""
    guesses = Guesses(correct=50, made=100, canaries=100)
    assert one_run_epsilon(guesses=guesses, delta=1e-5) == 0
    assert one_run_mu(guesses=guesses) == 0
    assert gaussian_equivalent_epsilon(guesses=guesses, delta=1e-5, confidence=0.95) == 0
    assert independent_mu(missed=50, present=100, false_alarms=50, absent=100) == 0
    assert independent_mu(missed=0, present=100, false_alarms=0, absent=0) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Guesses(correct=3, made=2, canaries=5), "must ascend"),
        (lambda: Guesses(correct=0, made=0, canaries=5), "at least one guess"),
        (lambda: one_run_epsilon(guesses=Guesses(correct=1, made=1, canaries=1), delta=1.0), "δ|d"),
        (
            lambda: one_run_mu(guesses=Guesses(correct=1, made=1, canaries=1), confidence=1.0),
            "strictly between",
        ),
        (lambda: best_number_of_guesses(canaries=1, mu=1.0), "too few"),
    ],
)
def test_impossible_questions_are_refused(call: object, message: str) -> None:
    """The error names the value and the limit."""
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
