"""Events at the far ends of their parameters: a certified price, within bounded memory."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    Skellam,
    TruncatedPoissonSampled,
    delta,
    epsilon,
)

ADD, REPLACE = Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE


def gaussian(sigma: float) -> Event:
    return Gaussian(noise_multiplier=sigma)


def batch(sigma: float) -> Event:
    return SampledWithoutReplacement(sample_size=16, dataset_size=1000, event=gaussian(sigma))


def sampled(probability: float, event: Event) -> Event:
    return PoissonSampled(probability=probability, event=event)


# An event, its adjacency, and between what its ε at δ = 1e-5 must lie.
EXTREMES: dict[str, tuple[Event, Adjacency, float, float]] = {
    "search": (Selected(event=gaussian(5), mean_runs=2, shape=1), ADD, 0.7, 0.9),
    "batch at 0.03": (batch(0.03), REPLACE, 2400, 2600),
    "128 batches at 0.05": (Repeated(event=batch(0.05), times=128), REPLACE, 8000, 8300),
    "laplace 1000": (Laplace(noise_multiplier=0.001), ADD, 900, 1000),
    "laplace a million": (Laplace(noise_multiplier=1e-6), ADD, 9e5, 1e6),
    "sampled laplace": (sampled(0.1, Laplace(noise_multiplier=0.001)), ADD, 0, 1000),
    "laplace beside": (
        Composed(events=(Laplace(noise_multiplier=1e-6), sampled(0.1, gaussian(1)))),
        ADD,
        9e5,
        math.inf,
    ),
    "choice 1000": (ExponentialMechanism(epsilon=1000), ADD, 900, 1000),
    "choice of nothing": (ExponentialMechanism(epsilon=1e-300), ADD, 0, 1e-300),
    "integers almost bare": (DiscreteGaussian(sigma=0.001, sensitivity=1), ADD, 4.9e5, 5.1e5),
    "integers bare": (DiscreteGaussian(sigma=1e-300, sensitivity=1), ADD, 1e300, math.inf),
    "integers far": (DiscreteLaplace(decay=0.5, sensitivity=10**9), ADD, 4.9e8, 5e8),
    "integers beside": (
        Composed(events=(DiscreteLaplace(decay=0.5, sensitivity=10**9), gaussian(1))),
        ADD,
        5e8,
        5.1e8,
    ),
    "almost never": (sampled(1e-300, ExponentialMechanism(epsilon=0.001)), ADD, 0, 0),
    "skellam bare": (Skellam(variance=1e-300, sensitivity=1), ADD, 600, math.inf),
    "skellam far": (Skellam(variance=100, sensitivity=1000), ADD, 2000, 1.1e4),
    "times 10^18": (Repeated(event=sampled(0.01, gaussian(1)), times=10**18), ADD, 1e13, 1e15),
    "laplace 10^18": (Repeated(event=Laplace(noise_multiplier=1), times=10**18), ADD, 3e17, 1e18),
    "batches 10^18": (Repeated(event=batch(10), times=10**18), REPLACE, 0, math.inf),
    "mixtures 10^18": (
        Repeated(
            event=Mixture(
                weights=(0.3, 0.7), events=(gaussian(1000), Laplace(noise_multiplier=10))
            ),
            times=10**18,
        ),
        ADD,
        0,
        math.inf,
    ),
    "steps 10^18": (RandomlyAllocated(steps=10**18, event=gaussian(1)), ADD, 0, 4.4),
    "noise 1e-320": (gaussian(1e-320), ADD, 1e300, math.inf),
    "sampled noise 1e-320": (
        Repeated(event=sampled(0.5, gaussian(1e-320)), times=9),
        ADD,
        1e9,
        9e999,
    ),
    "sampled noise 1e-60": (
        Repeated(event=sampled(0.5, gaussian(1e-60)), times=9),
        ADD,
        1e9,
        9e999,
    ),
    "noise 1e308": (Repeated(event=sampled(0.5, gaussian(1e308)), times=9), ADD, 0, 1e-12),
}


def within_three_gigabytes() -> None:
    """Price every extreme, and print what each costs."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    warnings.simplefilter("error")
    told = {}
    for name, (event, adjacency, *_) in EXTREMES.items():
        found = epsilon(event=event, delta=1e-5, adjacency=adjacency)
        at_eight = delta(event=event, epsilon=8.0, adjacency=adjacency)
        told[name] = [found.to_json(), at_eight.to_json()]
    print(json.dumps(told))


@pytest.fixture(scope="module")
def told() -> dict[str, list[dict[str, float]]]:
    """What a process with 3 GB of address space and no patience for warnings says."""
    code = f"import runpy; runpy.run_path({__file__!r})['within_three_gigabytes']()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    found: dict[str, list[dict[str, float]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_parameters_have_a_price(
    name: str, told: dict[str, list[dict[str, float]]]
) -> None:
    """No crash, no warning, no memory beyond bounds; ε lies where it must."""
    _, _, least, most = EXTREMES[name]
    price, at_eight = told[name]
    assert least <= float(price["epsilon"]) <= most
    assert float(price["slack"]) >= 0
    assert 0 <= at_eight["delta"] <= 1


@pytest.mark.parametrize("price", [epsilon, delta])
def test_more_than_a_float_counts_is_refused(price: Callable[..., object]) -> None:
    """Counts are multiplied on the way in, and may leave a float's range only there."""
    asked = {"delta": 1e-5} if price is epsilon else {"epsilon": 1.0}
    many = Repeated(event=Repeated(event=gaussian(1), times=10**200), times=10**200)
    with pytest.raises(ValueError, match=r"more than 10\^300 releases"):
        price(event=many, **asked)
    with pytest.raises(ValueError, match=r"times is more than 10\^300"):
        Repeated(event=gaussian(1), times=10**400)
    with pytest.raises(ValueError, match=r"dataset_size is more than 10\^15"):
        TruncatedPoissonSampled(
            probability=0.1, largest_batch=9, dataset_size=10**16, event=gaussian(1)
        )


@pytest.mark.parametrize("sigma", [0.001, 1.0])
def test_adjacency_is_refused_at_any_noise(sigma: float) -> None:
    """Where no grid is needed, what no pair is known for is refused all the same."""
    with pytest.raises(ValueError, match="where neighbours have the same size"):
        epsilon(event=batch(sigma), delta=1e-5)
    with pytest.raises(ValueError, match="RandomlyAllocated is priced"):
        epsilon(
            event=RandomlyAllocated(steps=9, event=gaussian(sigma)), delta=1e-5, adjacency=REPLACE
        )
