"""Each unit in k of t steps: against integrals over all steps' outputs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
    without_amplification,
)

NOISY = Gaussian(noise_multiplier=1.0)


def allocated(steps: int, participations: int, sigma: float = 1.0) -> RandomlyAllocated:
    return RandomlyAllocated(
        steps=steps, participations=participations, event=Gaussian(noise_multiplier=sigma)
    )


def integrated_delta(steps: int, often: int, sigma: float, at: float) -> float:
    """δ in both directions from S, the mean of e^(Σ μz_i − kμ²/2) over all sets of k steps."""
    points = np.linspace(-7.0, 7.0, 141)
    mesh = np.meshgrid(*[points] * steps, indexing="ij")
    weight = np.exp(-sum(z**2 for z in mesh) / 2)
    weight /= weight.sum()
    sets = [*itertools.combinations(range(steps), often)]
    ratio = sum(np.exp(sum(mesh[i] for i in s) / sigma - often / sigma**2 / 2) for s in sets)
    ratio = ratio / len(sets)
    removed = float((weight * np.maximum(ratio - math.exp(at), 0)).sum())
    added = float((weight * np.maximum(1 - math.exp(at) * ratio, 0)).sum())
    return max(removed, added)


@pytest.mark.parametrize(
    ("steps", "often", "sigma"), [(3, 2, 1.0), (3, 2, 2.0), (2, 1, 1.5), (3, 1, 1.5)]
)
@pytest.mark.parametrize("at", [0.0, 0.5, 1.5])
def test_the_price_holds_for_every_set_of_steps(
    steps: int, often: int, sigma: float, at: float
) -> None:
    """δ is no less than the integral over all outputs, and ε less its slack no more."""
    event = allocated(steps, often, sigma)
    exact = integrated_delta(steps, often, sigma, at)
    found = delta(event=event, epsilon=at)
    assert exact <= found.delta * 1.002 + 1e-9
    assert found.delta <= 1.6 * exact + 1e-3
    price = epsilon(event=event, delta=max(exact, 1e-6))
    assert price.epsilon - price.slack <= at + 0.01


@pytest.mark.parametrize(("steps", "often"), [(7, 3), (9, 3), (20, 19)])
def test_it_lies_between_sampling_nothing_and_one_participation(steps: int, often: int) -> None:
    """More than one participation costs more; less than each of them seen; more than its bound."""
    found = epsilon(event=allocated(steps, often, 2.0), delta=1e-5)
    seen = epsilon(event=without_amplification(event=allocated(steps, often, 2.0)), delta=1e-5)
    once = epsilon(event=allocated(steps, 1, 2.0), delta=1e-5)
    assert once.epsilon < found.epsilon < seen.epsilon
    summed = Gaussian(noise_multiplier=2.0 * math.sqrt(steps) / often)
    low = epsilon(event=summed, delta=1e-5).epsilon
    assert found.epsilon - found.slack == pytest.approx(low, rel=1e-9)
    assert 0 < low < found.epsilon


def test_unequal_blocks_are_those_of_a_partition() -> None:
    """7 steps in 3 blocks: two of 2 and one of 3, each unit in one step of each."""
    assert allocated(7, 3).blocks == [(2, 2), (3, 1)]
    blocks = Composed(events=(Repeated(event=allocated(2, 1), times=2), allocated(3, 1)))
    assert (
        epsilon(event=allocated(7, 3), delta=1e-5).epsilon
        == epsilon(event=blocks, delta=1e-5).epsilon
    )


def test_every_step_is_no_allocation() -> None:
    """k = t is each step for certain, under both adjacencies and around any event."""
    whole = Repeated(event=NOISY, times=4)
    for adjacency in Adjacency:
        all_in = epsilon(event=allocated(4, 4), delta=1e-5, adjacency=adjacency)
        assert all_in == epsilon(event=whole, delta=1e-5, adjacency=adjacency)
    count = RandomlyAllocated(steps=2, participations=2, event=Laplace(noise_multiplier=9))
    assert epsilon(event=count, delta=1e-5).epsilon <= 2 / 9 * (1 + 1e-15)


def test_what_no_pair_is_known_for_is_refused() -> None:
    """Replace-one, other events inside, and more participations than steps."""
    with pytest.raises(ValueError, match="add-or-remove"):
        epsilon(event=allocated(4, 2), delta=1e-5, adjacency=Adjacency.REPLACE_ONE)
    count = RandomlyAllocated(steps=4, participations=2, event=Laplace(noise_multiplier=9))
    with pytest.raises(ValueError, match="around Gaussian sums only"):
        epsilon(event=count, delta=1e-5)
    with pytest.raises(ValueError, match="participations=5 exceeds steps=4"):
        allocated(4, 5)
    with pytest.raises(ValueError, match="participations=0"):
        allocated(4, 0)


def test_documents_of_one_participation_stay_as_they_were() -> None:
    """Ledgers written before are read, and written the same; several participations are kept."""
    old = {"event": "randomly-allocated", "steps": 4, "of": event_to_json(event=NOISY)}
    assert event_from_json(document=old) == allocated(4, 1)
    assert event_to_json(event=allocated(4, 1)) == old
    assert event_from_json(document=event_to_json(event=allocated(4, 2))) == allocated(4, 2)
    with pytest.raises(ValueError, match="misses \\['of'\\]"):
        event_from_json(document={"event": "randomly-allocated", "steps": 4})


def test_a_sample_around_it_is_priced_from_both_sides() -> None:
    """Inside a Poisson sample the lower bound is that of the sampled sum."""
    sampled = PoissonSampled(probability=0.2, event=allocated(4, 2, 2.0))
    found = epsilon(event=sampled, delta=1e-4)
    assert 0 < found.epsilon - found.slack < found.epsilon
    assert found.epsilon < epsilon(event=allocated(4, 2, 2.0), delta=1e-4).epsilon
