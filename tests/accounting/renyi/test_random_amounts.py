"""Rényi divergence of a sum that is moved by a random amount, against its integral."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    MixtureOfGaussians,
    PoissonSampled,
    Repeated,
    epsilon,
)
from dpacc_accounting.renyi.divergence import event_divergences
from dpacc_accounting.renyi.random_amounts import random_amount_divergence

ADD = Adjacency.ADD_OR_REMOVE
EVENTS = [
    MixtureOfGaussians(noise_multiplier=1.0, weights=(0.2, 0.6, 0.2), sensitivities=(0, 1, 2)),
    MixtureOfGaussians(noise_multiplier=1.0, weights=(0.2, 0.8), sensitivities=(1, 2)),
    MixtureOfGaussians(noise_multiplier=5.0, weights=(0.99, 0.006, 0.004), sensitivities=(0, 1, 4)),
    MixtureOfGaussians(noise_multiplier=0.2, weights=(0.9, 0.05, 0.05), sensitivities=(0, 1, 2)),
]


@pytest.mark.parametrize("order", [1.001, 1.5, 3.0, 17.5])
@pytest.mark.parametrize("event", EVENTS)
def test_it_is_the_larger_integral(event: MixtureOfGaussians, order: float) -> None:
    """Of both directions, summed in logarithms on ten times as many nodes."""
    levels = [size / event.noise_multiplier for size in event.sensitivities]
    far = order * max(levels) + 20
    z = np.linspace(-far, far, 400_001)
    plain = -z * z / 2 - math.log(2 * math.pi) / 2
    mixed = np.logaddexp.reduce(
        [
            math.log(w) - (z - level) ** 2 / 2 - math.log(2 * math.pi) / 2
            for level, w in zip(levels, event.weights, strict=True)
        ],
        axis=0,
    )
    exact = []
    for p, q in ((mixed, plain), (plain, mixed)):
        terms = order * p + (1 - order) * q
        total = float(np.exp(terms - terms.max()).sum()) * (2 * far / 400_000)
        exact.append(float(terms.max()) + math.log(total))
    found = random_amount_divergence(event=event, order=order)
    # What the integral itself loses where a moment is near 1.
    rounding = 1e-13 / (order - 1)
    assert found >= max(exact) / (order - 1) * (1 - 1e-12) - rounding
    assert found == pytest.approx(max(exact) / (order - 1), rel=1e-9, abs=rounding)


@pytest.mark.parametrize("order", [1.5, 4.0, 40.0])
def test_one_amount_is_the_sampled_gaussian(order: float) -> None:
    """The same as by the other quadrature, and as by binomial sums."""
    once = MixtureOfGaussians(noise_multiplier=2.0, weights=(0.9, 0.1), sensitivities=(0, 1))
    sampled = PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=2.0))
    known = event_divergences(event=sampled, adjacency=ADD, orders=np.array([order]))[0]
    assert random_amount_divergence(event=once, order=order) == pytest.approx(known, rel=1e-9)


def test_what_no_nodes_resolve_is_bounded_with_the_draw_revealed() -> None:
    """Orders and amounts for which no quadrature is tried cost what the largest amount costs."""
    event = MixtureOfGaussians(noise_multiplier=1e-3, weights=(0.5, 0.5), sensitivities=(1, 2))
    assert random_amount_divergence(event=event, order=100.0) == math.inf
    found = event_divergences(event=event, adjacency=ADD, orders=np.array([100.0]))[0]
    assert 0.99 <= found / (100.0 * 2e3**2 / 2) <= 1


@pytest.mark.parametrize("event", EVENTS)
def test_it_is_a_second_opinion_from_above(event: MixtureOfGaussians) -> None:
    """Above the certified lower bound of the privacy loss distribution, and near it."""
    many = Repeated(event=event, times=300)
    tight = epsilon(event=many, delta=1e-5)
    loose = epsilon(event=many, delta=1e-5, method="rdp").epsilon
    assert tight.epsilon - tight.slack <= loose <= 2 * tight.epsilon
