"""The bounds on integer noise lie above the exact divergences, which are sums in one dimension."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.federation.distributed_noise import (
    ORDERS,
    epsilon_at,
    round_divergences,
    rounded_norm,
)
from dpacc_accounting.federation.rounds import Discretization
from scipy.stats import skellam

# One coordinate, moved by 4 steps of the grid; always rounded up by at most 1.
GRID = Discretization(dimension=1, granularity=0.25, rounding_bias=0.0)
SHIFT = 5


def _renyi(law: np.ndarray, order: float) -> float:
    """`ln Σ P^α Q^(1 − α) / (α − 1)` between a law on the integers and itself, moved."""
    with np.errstate(divide="ignore"):
        p, q = np.log(law[SHIFT:]), np.log(law[:-SHIFT])
    inside = np.isfinite(p) & np.isfinite(q)
    terms = order * p[inside] + (1 - order) * q[inside]
    return float(np.logaddexp.reduce(terms)) / (order - 1)


def _bound(noise: str, sigma: float, *, clients: int, **more: object) -> np.ndarray:
    return round_divergences(
        noise=noise,
        noise_multiplier=sigma,
        guaranteed=clients,
        present=clients,
        discretization=GRID,
        **more,
    )


@pytest.mark.parametrize("sigma", [2.0, 5.0])
@pytest.mark.parametrize(("position", "excess"), [(0, 1.1), (6, 1.2), (30, 1.6)])
def test_skellam_bound_holds(sigma: float, position: int, excess: float) -> None:
    """The bound is at least the exact divergence of a Skellam from itself, and close to it."""
    variance = (sigma / GRID.granularity) ** 2
    reach = np.arange(-35 * math.ceil(variance**0.5), 35 * math.ceil(variance**0.5) + 1)
    exact = _renyi(skellam.pmf(reach, variance / 2, variance / 2), ORDERS[position])
    bound = _bound("skellam", sigma, clients=10)[position]
    assert exact <= bound < excess * exact


@pytest.mark.parametrize("clients", [2, 8])
@pytest.mark.parametrize("position", [0, 6])
def test_distributed_discrete_gaussian_bound_holds(clients: int, position: int) -> None:
    """The bound is at least the exact divergence of a sum of discrete Gaussians."""
    sigma = 2.0
    share = sigma / GRID.granularity / math.sqrt(clients)
    one = np.exp(-(np.arange(-200.0, 201.0) ** 2) / (2 * share**2))
    law = one / one.sum()
    for _ in range(clients - 1):
        law = np.convolve(law, one / one.sum())
    exact = _renyi(law[law > 1e-250], ORDERS[position])
    bound = _bound("discrete-gaussian", sigma, clients=clients)[position]
    assert exact <= bound * (1 + 1e-9)
    assert bound < 1.2 * exact


def test_too_coarse_a_sum_of_discrete_gaussians_is_dear() -> None:
    """Shares much narrower than the grid add up to no Gaussian: the bound says so."""
    good = _bound("discrete-gaussian", 2.0, clients=10)[0]
    bad = _bound("discrete-gaussian", 2.0, clients=2000)[0]
    assert bad > 100 * good
    assert _bound("skellam", 2.0, clients=2000)[0] == pytest.approx(_bound("skellam", 2.0, clients=10)[0])  # fmt: skip # noqa: E501


def test_replacing_is_adding_twice() -> None:
    """Under replace-one the sum moves twice as far, and nothing is amplified."""
    kind = {"adjacency": Adjacency.REPLACE_ONE}
    replaced = _bound("skellam", 5.0, clients=10, **kind)
    assert np.all(replaced > 3.9 * _bound("skellam", 5.0, clients=10))
    assert np.all(_bound("skellam", 5.0, clients=10, sampling_rate=0.01, **kind) == replaced)


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 0.999])
def test_sampling_amplifies(rate: float) -> None:
    """A Poisson sample costs less at every order, and nearly p² of it where all is small."""
    whole = _bound("skellam", 5.0, clients=10)
    sampled = _bound("skellam", 5.0, clients=10, sampling_rate=rate)
    assert np.all(sampled <= whole)
    assert sampled[0] == pytest.approx(math.log1p(rate**2 * math.expm1(whole[0])), rel=1e-6)


def test_no_noise_is_no_privacy() -> None:
    """Without noise, or without an honest client, the divergence is infinite, and so is ε."""
    assert np.all(np.isinf(_bound("skellam", 0.0, clients=10)))
    assert math.isinf(epsilon_at(divergences=_bound("skellam", 0.0, clients=3), delta=1e-5))


def test_rounding_grows_the_norm_by_less_when_it_may_be_repeated() -> None:
    """Conditional rounding allows less than the worst case √d, and never less than the norm."""
    for dimension in (1, 100, 10**6):
        always = rounded_norm(
            discretization=Discretization(dimension=dimension, granularity=0.01, rounding_bias=0.0)
        )
        lucky = rounded_norm(discretization=Discretization(dimension=dimension, granularity=0.01))
        assert always == pytest.approx(100 + math.sqrt(dimension))
        assert 100 < lucky <= always
