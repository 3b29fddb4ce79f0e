"""Poisson samples of anything but one Gaussian, against their outputs, listed one by one."""

from __future__ import annotations

import contextlib
import math
from functools import reduce
from itertools import product

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as reference
from dpacc_accounting import (
    Adjacency,
    Composed,
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Skellam,
    TruncatedPoissonSampled,
    delta,
    epsilon,
)
from dpacc_accounting.pld.event_losses import directed_branches
from dpacc_accounting.pld.privacy_losses import Atoms, on_grid, whole_scale
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import laplace, skellam

Outputs = tuple[np.ndarray, np.ndarray]
"""Chances of every output with the unit, and without."""


def sampled(event: Event, *, q: float, times: int) -> Repeated:
    """`event` on so many Poisson samples."""
    return Repeated(event=PoissonSampled(probability=q, event=event), times=times)


def discrete_gaussian(sigma: float, sensitivity: int) -> Outputs:
    """A discrete Gaussian moved by `sensitivity`, and not."""
    reach = math.ceil(40 * sigma) + sensitivity
    k = np.arange(-reach, reach + sensitivity + 1.0)
    chances = np.array([np.exp(-((k - m) ** 2) / (2 * sigma**2)) for m in (sensitivity, 0)])
    with_unit, without = chances / chances.sum(axis=1, keepdims=True)
    return with_unit, without


def skellam_noise(variance: float, sensitivity: int) -> Outputs:
    """Skellam noise moved by `sensitivity`, and not."""
    reach = math.ceil(60 + 12 * math.sqrt(variance)) + sensitivity
    k = np.arange(-reach, reach + 1.0)
    return tuple(skellam.pmf(k - m, variance / 2, variance / 2) for m in (sensitivity, 0))


def laplace_cells(scale: float, cells: int = 400) -> Outputs:
    """Laplace noise of `scale` moved by 1 and not, its outputs merged in cells: no δ grows."""
    edges = np.concatenate([[-np.inf], np.linspace(0.0, 1.0, cells), [np.inf]])
    return tuple(np.diff(laplace.cdf(edges, m, scale)) for m in (1.0, 0.0))


def gaussian_cells(sigma: float, cells: int = 2000) -> Outputs:
    """The same of a Gaussian."""
    edges = np.concatenate([[-np.inf], np.linspace(-9 * sigma, 1 + 9 * sigma, cells), [np.inf]])
    return tuple(np.diff(ndtr((edges - m) / sigma)) for m in (1.0, 0.0))


def after_sampling(outputs: Outputs, q: float) -> Outputs:
    """What the outputs are when the unit joins with chance q."""
    with_unit, without = outputs
    return (1 - q) * without + q * with_unit, without


def together(one: Outputs, other: Outputs) -> Outputs:
    """Both outputs seen."""
    return tuple(np.multiply.outer(a, b).ravel() for a, b in zip(one, other, strict=True))


def listed_delta(outputs: Outputs, at: float) -> float:
    """The larger δ of removing and of adding the unit: a sum over all outputs."""
    present, absent = outputs
    removed = np.maximum(present - math.exp(at) * absent, 0.0).sum()
    added = np.maximum(absent - math.exp(at) * present, 0.0).sum()
    return float(max(removed, added))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("q", "at"), [(0.01, 2.0), (0.01, 20.0), (0.5, 0.0), (0.5, 2.0), (0.99, 0.5)]
)
@pytest.mark.parametrize(
    ("mechanism", "outputs"),
    [
        (DiscreteGaussian(sigma=1, sensitivity=8), discrete_gaussian(1, 8)),
        (DiscreteGaussian(sigma=1, sensitivity=2), discrete_gaussian(1, 2)),
        (DiscreteGaussian(sigma=3, sensitivity=1), discrete_gaussian(3, 1)),
        (DiscreteGaussian(sigma=0.3, sensitivity=1), discrete_gaussian(0.3, 1)),
        (Skellam(variance=4, sensitivity=12), skellam_noise(4, 12)),
        (Skellam(variance=25, sensitivity=1), skellam_noise(25, 1)),
    ],
)
def test_sampled_integers_cost_what_their_outputs_say(mechanism, outputs, q, times, at):
    """δ of a sampled integer mechanism lies within the bounds, and close to the upper one."""
    exact = listed_delta(reduce(together, [after_sampling(outputs, q)] * times), at)
    found = delta(event=sampled(mechanism, q=q, times=times), epsilon=at)
    assert exact <= found.delta * (1 + 1e-9)
    assert found.delta <= exact * 1.02 + 1e-12


@settings(max_examples=20)
@given(
    st.floats(0.3, 3.0),
    st.integers(1, 9),
    st.floats(0.001, 0.999),
    st.integers(1, 3),
    st.floats(0.0, 8.0),
)
def test_no_sampled_discrete_gaussian_is_priced_too_low(sigma, sensitivity, q, times, at):
    """Whatever the noise, the sensitivity, the sample and the count: never below the exact δ."""
    outputs = after_sampling(discrete_gaussian(sigma, sensitivity), q)
    likely = (outputs[0] > 1e-25) | (outputs[1] > 1e-25)
    kept = outputs[0][likely], outputs[1][likely]
    exact = listed_delta(reduce(together, [kept] * times), at)
    event = sampled(DiscreteGaussian(sigma=sigma, sensitivity=sensitivity), q=q, times=times)
    assert exact <= delta(event=event, epsilon=at).delta * (1 + 1e-9) + 1e-18


@pytest.mark.parametrize("q", [0.05, 0.6])
@pytest.mark.parametrize("at", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(
    ("event", "outputs"),
    [
        (Laplace(noise_multiplier=0.05), laplace_cells(0.05)),
        (Repeated(event=Laplace(noise_multiplier=0.3), times=2), None),
        (
            Composed(events=(Gaussian(noise_multiplier=0.2), Laplace(noise_multiplier=0.2))),
            together(gaussian_cells(0.2, 300), laplace_cells(0.2, 100)),
        ),
    ],
)
def test_sampled_compositions_are_never_priced_too_low(event, outputs, q, at):
    """Behind one coin, Laplace noise, twice or beside a Gaussian, costs at least its merged δ."""
    if outputs is None:
        outputs = together(laplace_cells(0.3, 200), laplace_cells(0.3, 200))
    least = listed_delta(after_sampling(outputs, q), at)
    found = delta(event=sampled(event, q=q, times=1), epsilon=at).delta
    assert least <= found * (1 + 1e-9)
    assert found <= 1.1 * least + 1e-12


def test_a_sampled_mixture_is_never_priced_too_low():
    """A Gaussian that runs in three cases of ten, sampled, costs at least its merged δ."""
    with_unit, without = gaussian_cells(0.15)
    seen = np.append(0.3 * with_unit, 0.7), np.append(0.3 * without, 0.7)
    outputs = after_sampling(seen, 0.1)
    nothing = Composed(events=())
    hidden = Mixture(weights=(0.3, 0.7), events=(Gaussian(noise_multiplier=0.15), nothing))
    for at in (0.02, 1.0, 10.0):
        found = delta(event=sampled(hidden, q=0.1, times=1), epsilon=at).delta
        least = listed_delta(outputs, at)
        assert least <= found * (1 + 1e-9)
        assert found <= 1.05 * least


@pytest.mark.parametrize(
    ("q", "sigma", "sensitivity", "times", "at_delta"),
    [
        (0.01, 1, 8, 100, 1e-5),
        (0.01, 1, 8, 10, 1e-3),
        (0.01, 1, 6, 100, 1e-5),
        (0.01, 10, 50, 1000, 1e-5),
        (0.2, 2, 3, 50, 1e-6),
    ],
)
def test_many_sampled_discrete_gaussians_agree_with_the_reference(
    q, sigma, sensitivity, times, at_delta
):
    """Compositions at low noise lie between dp-accounting's optimistic and pessimistic values.

    By default dp-accounting counts 1e-8 a release as an infinite loss in both, so it is told to cut
    its integers farther out.
    """
    low, high = (
        reference.from_discrete_gaussian_mechanism(
            sigma,
            sensitivity,
            truncation_bound=16 * sigma + sensitivity,
            sampling_prob=q,
            pessimistic_estimate=pessimistic,
            value_discretization_interval=1e-3,
        )
        .self_compose(times)
        .get_epsilon_for_delta(at_delta)
        for pessimistic in (False, True)
    )
    mechanism = DiscreteGaussian(sigma=sigma, sensitivity=sensitivity)
    found = epsilon(event=sampled(mechanism, q=q, times=times), delta=at_delta)
    assert low <= found.epsilon <= high * 1.0005
    assert found.epsilon - found.slack <= high


@pytest.mark.parametrize(
    ("event", "at_delta", "least"),
    [
        (sampled(Skellam(variance=25, sensitivity=30), q=0.1, times=10), 0.01, 55.07),
        (
            sampled(Repeated(event=Laplace(noise_multiplier=0.25), times=10), q=0.01, times=100),
            1e-5,
            196.8,
        ),
        (
            sampled(
                Composed(events=(Gaussian(noise_multiplier=0.2), Laplace(noise_multiplier=5.0))),
                q=0.01,
                times=100,
            ),
            1e-5,
            75.14,
        ),
        (
            sampled(
                Mixture(
                    weights=(0.3, 0.7),
                    events=(Gaussian(noise_multiplier=0.15), Composed(events=())),
                ),
                q=0.1,
                times=10,
            ),
            1e-5,
            100.44,
        ),
    ],
)
def test_long_compositions_are_not_priced_too_low(event, at_delta, least):
    """Known lower bounds on ε of compositions at low noise are kept."""
    assert least <= epsilon(event=event, delta=at_delta).epsilon <= 1.05 * least


@pytest.mark.parametrize(
    "event",
    [
        Gaussian(noise_multiplier=0.02),
        PoissonSampled(probability=0.3, event=Gaussian(noise_multiplier=0.05)),
        Laplace(noise_multiplier=0.05),
        ExponentialMechanism(epsilon=20.0),
        DiscreteGaussian(sigma=1, sensitivity=8),
        Skellam(variance=2, sensitivity=9),
        Mixture(
            weights=(0.2, 0.8), events=(Gaussian(noise_multiplier=0.1), Laplace(noise_multiplier=1))
        ),
        PoissonSampled(probability=1e-4, event=DiscreteGaussian(sigma=1, sensitivity=9)),
        PoissonSampled(
            probability=0.5,
            event=Composed(
                events=(Laplace(noise_multiplier=0.1), Gaussian(noise_multiplier=0.1)),
            ),
        ),
        PoissonSampled(
            probability=0.5,
            event=PoissonSampled(probability=0.1, event=Skellam(variance=1, sensitivity=9)),
        ),
        TruncatedPoissonSampled(
            probability=0.1,
            largest_batch=12,
            dataset_size=100,
            event=Gaussian(noise_multiplier=0.1),
        ),
        RandomlyAllocated(steps=7, event=Gaussian(noise_multiplier=0.2)),
        PoissonSampled(
            probability=0.5, event=RandomlyAllocated(steps=7, event=Gaussian(noise_multiplier=0.2))
        ),
        SampledWithoutReplacement(
            sample_size=10, dataset_size=100, event=Gaussian(noise_multiplier=0.5)
        ),
    ],
    ids=lambda event: type(event).__name__,
)
def test_no_law_loses_mass(event):
    """On every path a law from above has all of P, one from below no more, neither much else."""
    found = []
    for adjacency in Adjacency:
        with contextlib.suppress(ValueError):  # priced under one adjacency only
            found += directed_branches(event=event, adjacency=adjacency)
    laws = [law for branch in found for law in branch.laws]
    assert laws
    for law, (step, outside), above in product(
        laws, [(0.01, 1e-15), (0.05, 1e-9), (0.05, 1e-40)], [True, False]
    ):
        found = on_grid(law=law, step=step, outside=outside, above=above)
        mass = math.fsum(found.masses) + found.infinite
        if above:
            assert 1 - 1e-14 <= mass <= 1 + 1e-8
        else:
            assert 0.5 <= mass <= 1 + 1e-14


def test_a_law_that_lost_mass_prices_nothing():
    """Below 1 from above, above 1 from below, or no number: an error, not a price."""
    for mass, above in ((1 - 1e-9, True), (1 + 1e-7, False), (math.nan, True), (math.nan, False)):
        with pytest.raises(ArithmeticError, match="nothing can be priced"):
            whole_scale(mass=mass, above=above)
    lossy = Atoms(np.zeros(1), np.array([0.9]), 0.0)
    with pytest.raises(ArithmeticError, match="from above"):
        lossy.whole(above=True)
