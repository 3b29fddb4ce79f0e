"""Groups of examples: exact for Gaussians, tight for Poisson samples, never below simulation."""

import math

import numpy as np
import pytest
from dpacc_accounting import Gaussian, PoissonSampled, Repeated, delta, epsilon
from dpacc_accounting.gaussian import gaussian_epsilon
from dpacc_accounting.groups import group_epsilon, user_epsilon
from dpacc_accounting.pld.group_pairs import group_pairs
from scipy.integrate import quad
from scipy.stats import binom, norm


def _training(rate: float, sigma: float, steps: int) -> Repeated:
    step = PoissonSampled(probability=rate, event=Gaussian(noise_multiplier=sigma))
    return Repeated(event=step, times=steps)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_unsampled_groups_are_exact(size):
    """k units move the sum k times as far: kμ-GDP, and 2kμ where units are replaced."""
    event = Repeated(event=Gaussian(noise_multiplier=30.0), times=9)
    for adjacency, mu in (("add-or-remove", 0.1), ("replace-one", 0.2)):
        found = group_epsilon(event=event, size=size, delta=1e-5, adjacency=adjacency)
        assert found.epsilon == pytest.approx(gaussian_epsilon(mu=size * mu, delta=1e-5))
        assert found.slack == 0
        assert found.unit == f"group of up to {size} examples"


@pytest.mark.parametrize(("rate", "sigma", "size"), [(0.1, 1.0, 2), (0.01, 2.0, 8), (0.5, 4.0, 20)])
def test_the_law_of_a_group_is_that_of_its_sample(rate, sigma, size):
    """δ of one release is the integral over outputs with Binomial(k, q) of the group present."""
    counts = np.arange(size + 1)
    weights = binom.pmf(counts, size, rate)

    def mixed(x: float) -> float:
        return float((weights * norm.pdf(x - counts / sigma)).sum())

    removed, added = group_pairs(probability=rate, noise_multiplier=sigma, size=size)
    for level in (0.0, 0.3, 1.0):
        grown = math.exp(level)
        ends = {"limit": 2000, "epsabs": 1e-13}
        exact = quad(lambda x, g=grown: max(mixed(x) - g * norm.pdf(x), 0.0), -12, 20, **ends)[0]
        assert removed.delta(level) == pytest.approx(exact, rel=1e-5, abs=1e-10)
        exact = quad(lambda x, g=grown: max(norm.pdf(x) - g * mixed(x), 0.0), -12, 20, **ends)[0]
        assert added.delta(level) == pytest.approx(exact, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize(("rate", "sigma", "size"), [(0.1, 1.0, 2), (0.003, 0.7, 100), (1e-4, 0.5, 3)])  # fmt: skip # noqa: E501
def test_outputs_undo_losses(rate, sigma, size):
    """The output of a loss has that loss, in both directions, far into both tails."""
    for pair in group_pairs(probability=rate, noise_multiplier=sigma, size=size):
        z = np.linspace(*pair.range_holding(outside=1e-9), 101)
        losses = pair.loss(z)
        assert (np.diff(losses) >= 0).all()
        assert pair.loss(pair.output(losses)) == pytest.approx(losses, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.01, 1.0, 200), (0.05, 2.0, 60)])
def test_larger_groups_cost_more_and_the_law_beats_the_rule(rate, sigma, steps):
    """ε grows with k, from the single unit's; it stays below kε at δ·(e^{kε} − 1)/(e^ε − 1)."""
    from dpacc_accounting.groups import _by_repetition

    event = _training(rate, sigma, steps)
    found = [group_epsilon(event=event, size=k, delta=1e-5).epsilon for k in (1, 2, 3, 8)]
    assert found == sorted(found)
    assert found[0] == epsilon(event=event, delta=1e-5).epsilon
    for k, each in zip((2, 3), found[1:], strict=False):
        assert each < _by_repetition(event, k, 1e-5, "add-or-remove")


def test_the_rule_holds_as_stated():
    """Replaced groups of a sampled event cost kε with δ(ε)·(e^{kε} − 1)/(e^ε − 1) within δ."""
    event, k = _training(0.01, 1.0, 100), 3
    found = group_epsilon(event=event, size=k, delta=1e-5, adjacency="replace-one")
    one = found.epsilon / k
    spent = delta(event=event, epsilon=one, adjacency="replace-one").delta
    assert spent * math.expm1(k * one) / math.expm1(one) <= 1e-5 * (1 + 1e-9)
    assert spent * math.expm1(k * one) / math.expm1(one) >= 1e-5 * 0.99


def test_one_release_on_a_group_matches_simulation():
    """P(loss > ε) − e^ε·Q(loss > ε) over a million draws of ten composed steps is within δ."""
    rate, sigma, size, steps = 0.2, 2.0, 4, 10
    found = group_epsilon(event=_training(rate, sigma, steps), size=size, delta=1e-2)
    draw = np.random.default_rng(7)
    removed, _ = group_pairs(probability=rate, noise_multiplier=sigma, size=size)
    present = draw.binomial(size, rate, (steps, 100_000)) / sigma
    losses = sum(removed.loss(row + draw.standard_normal(100_000)) for row in present)
    estimate = np.maximum(-np.expm1(found.epsilon - losses), 0.0)
    error = 4 * estimate.std() / math.sqrt(len(estimate))
    assert estimate.mean() - error <= 1e-2 <= estimate.mean() + error + 2e-4


def test_users_are_groups_under_a_cap():
    """A user with at most k examples has the ε of a group of k, and the unit says so."""
    event = _training(0.01, 1.0, 50)
    user = user_epsilon(event=event, cap=4, delta=1e-5, unit="photo")
    group = group_epsilon(event=event, size=4, delta=1e-5)
    assert user.epsilon == group.epsilon
    assert user.unit == "user with up to 4 photos"
    assert user_epsilon(event=event, cap=1, delta=1e-5).unit == "user with up to 1 example"


@pytest.mark.parametrize("size", [0, -1, 2.5, math.inf, True])
def test_sizes_that_are_no_counts_are_refused(size):
    """A group has a whole number of units, at least one."""
    with pytest.raises(ValueError, match="size="):
        group_epsilon(event=Gaussian(noise_multiplier=1.0), size=size, delta=1e-5)
