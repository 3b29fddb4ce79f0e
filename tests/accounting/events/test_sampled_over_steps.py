"""Samples drawn in turns: what they are in other terms, and what they cost."""

from __future__ import annotations

import itertools
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import (
    Adjacency,
    CyclicPoissonSampled,
    Gaussian,
    PoissonSampled,
    Repeated,
    calibrate_noise,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
    group_epsilon,
    to_dp_event,
    without_amplification,
)
from dpacc_accounting.factorization.banded import optimal_coefficients
from dpacc_accounting.factorization.workload import Workload

NOISY = Gaussian(noise_multiplier=1.2)
TURNS = CyclicPoissonSampled(probability=0.2, groups=4, steps=10, event=NOISY)
AMOUNTS_TO = Repeated(event=PoissonSampled(probability=0.2, event=NOISY), times=3)


@pytest.mark.parametrize(
    "wrong", [{"groups": 0}, {"steps": 0}, {"probability": 1.5}, {"event": "x"}, {"groups": 2.5}]
)
def test_what_is_no_cyclic_sample_is_refused(wrong: dict[str, object]) -> None:
    """By the name of the field, or of the event."""
    fields: dict[str, object] = {"probability": 0.2, "groups": 4, "steps": 10, "event": NOISY}
    with pytest.raises(ValueError, match=next(iter(wrong)) if "event" not in wrong else "an event"):
        CyclicPoissonSampled(**{**fields, **wrong})  # type: ignore[arg-type]


def test_it_survives_a_document() -> None:
    """As JSON and back."""
    assert event_from_json(document=event_to_json(event=TURNS)) == TURNS


@pytest.mark.parametrize("adjacency", [Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE])
@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_it_costs_what_its_first_groups_turns_cost(adjacency: Adjacency, method: str) -> None:
    """⌈10/4⌉ = 3 compositions of the Poisson-sampled Gaussian, to the last digit."""
    asked = {"delta": 1e-5, "adjacency": adjacency, "method": method}
    assert epsilon(event=TURNS, **asked) == epsilon(event=AMOUNTS_TO, **asked)  # type: ignore[arg-type]


def test_dp_accounting_prices_the_composition_alike() -> None:
    """Its own accountant, on the event in its terms, agrees to its grid."""
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(to_dp_event(event=TURNS))
    ours = epsilon(event=TURNS, delta=1e-5).epsilon
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)
    assert isinstance(to_dp_event(event=TURNS), dp_accounting.SelfComposedDpEvent)


def test_a_peers_example_of_amplified_banded_noise() -> None:
    """JAX Privacy's: 128 steps of 16 bands at rate 0.01 of a group cost 8 compositions."""
    run = CyclicPoissonSampled(probability=0.01, groups=16, steps=128, event=NOISY)
    assert run.turns == 8


def test_whoever_knows_the_samples_sees_every_turn() -> None:
    """Without amplification: as many Gaussians as the first group has turns."""
    assert without_amplification(event=TURNS) == Repeated(event=NOISY, times=3)


def test_a_group_of_units_gets_the_general_rule() -> None:
    """Two units in groups side by side share rows of C·G: a mixture would say too little."""
    pair = group_epsilon(event=TURNS, size=2, delta=1e-5)
    as_if_apart = group_epsilon(event=AMOUNTS_TO, size=2, delta=1e-5)
    assert pair.epsilon > as_if_apart.epsilon
    assert pair.epsilon <= 2 * epsilon(event=TURNS, delta=1e-9).epsilon


def test_two_units_side_by_side_exceed_the_mixtures_price() -> None:
    """Of C = (0.8, 0.6), units of groups 0 and 1 move C·G by √2.96, and not by √2."""
    strategy = np.array([[0.8, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    apart = np.linalg.norm(strategy @ np.array([1.0, 1.0, 0.0]))
    assert apart**2 == pytest.approx(1 + 1 + 2 * 0.8 * 0.6)


@pytest.mark.parametrize(("steps", "bands"), [(5, 2), (6, 3), (7, 3), (6, 6)])
def test_no_participation_moves_a_sequence_by_more_than_was_charged(steps: int, bands: int) -> None:
    """Every group, every set of its turns, every sign: ‖C·G‖² is at most the number of turns."""
    column = optimal_coefficients(workload=Workload.constant(steps=steps), bands=bands)
    strategy = toeplitz(column, steps)
    for group in range(bands):
        turns = range(group, steps, bands)
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=len(turns)):
            moved = np.zeros(steps)
            moved[list(turns)] = signs
            square = float(np.square(strategy @ moved).sum())
            assert square <= np.abs(signs).sum() + 1e-12
    charged = CyclicPoissonSampled(probability=1.0, groups=bands, steps=steps, event=NOISY)
    assert charged.turns == max(len(range(g, steps, bands)) for g in range(bands))


@pytest.mark.parametrize("epsilon_at", [0.5, 1.5])
def test_a_monte_carlo_estimate_of_the_correlated_run_lies_below_the_price(
    epsilon_at: float,
) -> None:
    """δ(ε) of what is released, by its own densities with and without a unit: as priced."""
    steps, bands, probability, sigma = 6, 2, 0.3, 0.7
    strategy = toeplitz((0.8, 0.6), steps)
    rng = np.random.default_rng(0)
    patterns = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    chances = np.prod(np.where(patterns == 1, probability, 1 - probability), axis=1)
    moved = np.zeros((len(patterns), steps))
    moved[:, 0::bands] = patterns
    means = moved @ strategy.T
    drawn = rng.choice(len(patterns), size=200_000, p=chances)
    seen = means[drawn] + sigma * rng.standard_normal((len(drawn), steps))
    exponents = -np.square(seen[:, None] - means).sum(axis=2) / (2 * sigma**2)
    with_unit = np.log(np.exp(exponents) @ chances)
    without = -np.square(seen).sum(axis=1) / (2 * sigma**2)
    exceeds = np.maximum(0.0, 1 - np.exp(epsilon_at - (with_unit - without)))
    error = exceeds.std() / math.sqrt(len(exceeds))
    event = CyclicPoissonSampled(
        probability=probability, groups=bands, steps=steps, event=Gaussian(noise_multiplier=sigma)
    )
    priced = delta(event=event, epsilon=epsilon_at).delta
    assert exceeds.mean() - 4 * error <= priced
    # The unit is in the group with most turns, so that nothing is given away either.
    assert exceeds.mean() + 4 * error >= 0.98 * priced


def test_calibration_to_a_budget_is_that_of_the_turns() -> None:
    """σ of 8 turns at the group's rate keeps ε = 1 over the whole run."""
    sigma = calibrate_noise(
        dataset_size=100, batch_size=16, steps=8, epsilon=1.0, delta=1e-6
    ).noise_multiplier
    run = CyclicPoissonSampled(
        probability=0.16, groups=16, steps=128, event=Gaussian(noise_multiplier=sigma)
    )
    assert 0.999 < epsilon(event=run, delta=1e-6).epsilon <= 1.0


def toeplitz(column: tuple[float, ...], steps: int) -> np.ndarray:
    padded = np.zeros(steps)
    padded[: len(column)] = column[:steps]
    at = np.subtract.outer(np.arange(steps), np.arange(steps))
    return np.where(at >= 0, padded[np.maximum(at, 0)], 0.0)
