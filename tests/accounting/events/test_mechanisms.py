import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as reference
from dpacc_accounting import (
    Adjacency,
    Composed,
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    Repeated,
    Skellam,
    delta,
    epsilon,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skellam


def hockey_stick(p: np.ndarray, q: np.ndarray, at: float) -> float:
    """`Σ (p − e^ε q)_+`."""
    return float(np.maximum(p - math.exp(at) * q, 0.0).sum())


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_one_laplace_release_has_a_closed_form(adjacency, share):
    """δ(ε) = 1 − e^((ε − s/b)/2) below ε = s/b, with s = 1, or 2 for replace-one."""
    loss = (2 if adjacency is Adjacency.REPLACE_ONE else 1) / 1.7
    exact = -math.expm1((share - 1) * loss / 2)
    found = delta(
        event=Laplace(noise_multiplier=1.7), epsilon=share * loss, adjacency=adjacency
    ).delta
    assert exact * (1 - 1e-12) <= found <= exact * 1.01
    beyond = delta(event=Laplace(noise_multiplier=1.7), epsilon=1.01 * loss, adjacency=adjacency)
    assert beyond.delta < 1e-100


def laws(sampling: float):
    """Our mechanisms beside dp-accounting's, under the same sampling."""
    grid = {"value_discretization_interval": 1e-4, "sampling_prob": sampling}
    return [
        (Laplace(noise_multiplier=2.0), reference.from_laplace_mechanism(2.0, **grid)),
        (
            DiscreteGaussian(sigma=4.0, sensitivity=3),
            reference.from_discrete_gaussian_mechanism(4.0, 3, **grid),
        ),
    ]


@pytest.mark.parametrize("sampling", [1.0, 0.1])
@pytest.mark.parametrize("times", [1, 12, 150])
def test_laplace_and_discrete_gaussian_agree_with_dp_accounting(sampling, times):
    """Plain and Poisson-sampled, once and composed, the certified interval meets its ε."""
    for event, law in laws(sampling):
        step = PoissonSampled(probability=sampling, event=event)
        ours = epsilon(event=Repeated(event=step, times=times), delta=1e-6)
        theirs = law.self_compose(times).get_epsilon_for_delta(1e-6)
        assert ours.epsilon - ours.slack <= theirs * 1.0001
        assert theirs * 0.9985 <= ours.epsilon <= theirs * 1.002
        assert ours.slack <= 0.02 * ours.epsilon


@pytest.mark.parametrize("at", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_one_skellam_release_is_summed_directly(at, adjacency):
    """δ of one Skellam release is the sum over all integers."""
    shift = 10 if adjacency is Adjacency.REPLACE_ONE else 5
    k = np.arange(-400, 400)
    p, q = skellam.pmf(k, 20.0, 20.0), skellam.pmf(k - shift, 20.0, 20.0)
    exact = hockey_stick(p, q, at)
    event = Skellam(variance=40.0, sensitivity=5)
    found = delta(event=event, epsilon=at, adjacency=adjacency).delta
    assert exact * (1 - 1e-9) <= found <= exact * 1.01


def test_wide_integer_noise_costs_what_the_gaussian_costs():
    """With σ a hundred units, discrete Gaussian and Skellam price as the Gaussian."""
    gauss = epsilon(event=Repeated(event=Gaussian(noise_multiplier=1.0), times=4), delta=1e-5)
    for noise in (
        DiscreteGaussian(sigma=300.0, sensitivity=300),
        Skellam(variance=1e8, sensitivity=10_000),
    ):
        found = epsilon(event=Repeated(event=noise, times=4), delta=1e-5).epsilon
        assert found == pytest.approx(gauss.epsilon, rel=2e-3)


@pytest.mark.parametrize("at", [0.0, 0.4, 1.0])
def test_a_poisson_sample_of_an_integer_is_summed_directly(at):
    """A sampled discrete Gaussian has the larger of the two directions' sums."""
    k = np.arange(-60, 61)
    p = np.exp(-(k**2) / 8.0)
    q = np.exp(-((k - 2) ** 2) / 8.0)
    p, q = p / p.sum(), q / q.sum()
    mixed = 0.8 * p + 0.2 * q
    exact = max(hockey_stick(mixed, p, at), hockey_stick(p, mixed, at))
    event = PoissonSampled(probability=0.2, event=DiscreteGaussian(sigma=2.0, sensitivity=2))
    found = delta(event=event, epsilon=at).delta
    assert exact * (1 - 1e-9) <= found <= exact * 1.01


def test_one_sample_around_several_releases_is_summed_directly():
    """Two integers released about one Poisson sample: the sum over all pairs of integers."""
    k = np.arange(-40, 41)
    p = np.exp(-(k**2) / 8.0)
    q = np.exp(-((k - 2) ** 2) / 8.0)
    p, q = (np.outer(law, law).ravel() / law.sum() ** 2 for law in (p, q))
    mixed = 0.7 * p + 0.3 * q
    two = Repeated(event=DiscreteGaussian(sigma=2.0, sensitivity=2), times=2)
    event = PoissonSampled(probability=0.3, event=two)
    exact = max(hockey_stick(mixed, p, 0.5), hockey_stick(p, mixed, 0.5))
    found = delta(event=event, epsilon=0.5).delta
    assert exact * (1 - 1e-9) <= found <= exact * 1.01


def test_a_replace_one_sample_is_never_below_its_exact_sum():
    """The coin counts as seen under replace-one: an upper bound, and within the plain release."""
    k = np.arange(-60, 61)
    zero, one, two = (np.exp(-((k - m) ** 2) / 8.0) for m in (0, -1, 1))
    zero, one, two = (law / law.sum() for law in (zero, one, two))
    exact = hockey_stick(0.7 * zero + 0.3 * one, 0.7 * zero + 0.3 * two, 0.2)
    noise, where = DiscreteGaussian(sigma=2.0, sensitivity=1), Adjacency.REPLACE_ONE
    sampled = PoissonSampled(probability=0.3, event=noise)
    found = delta(event=sampled, epsilon=0.2, adjacency=where).delta
    assert exact < found < delta(event=noise, epsilon=0.2, adjacency=where).delta


@pytest.mark.parametrize("at", [0.0, 0.3, 0.9])
def test_bounded_range_has_a_closed_form(at):
    """δ(ε′) = (1 − e^((ε′ − ε)/2))² / (1 − e^(−ε)) for a choice of range ε = 1."""
    exact = (1 - math.exp((at - 1) / 2)) ** 2 / -math.expm1(-1.0)
    found = delta(event=ExponentialMechanism(epsilon=1.0), epsilon=at).delta
    assert exact * (1 - 1e-12) <= found <= exact * 1.01


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-1, 1)), min_size=2, max_size=8),
    st.floats(0.2, 3.0),
    st.floats(0.0, 1.0),
)
def test_no_real_choice_costs_more_than_its_range(scores, width, share):
    """Any exponential mechanism on scores of sensitivity 1 stays below the bound, at every ε."""
    score, moved = np.array(scores).T
    before, after = np.exp(width * score / 2), np.exp(width * (score + moved) / 2)
    exact = hockey_stick(before / before.sum(), after / after.sum(), share * width)
    found = delta(event=ExponentialMechanism(epsilon=width), epsilon=share * width).delta
    assert exact <= found + 1e-12


def test_mechanisms_compose_with_gaussians_and_hide_behind_coins():
    """A Laplace count beside training costs more than either, and less when it is rare."""
    step = PoissonSampled(probability=0.02, event=Gaussian(noise_multiplier=1.0))
    training, count = Repeated(event=step, times=100), Laplace(noise_multiplier=2.0)
    rare = Mixture(weights=(0.1, 0.9), events=(count, Composed(events=())))
    both, seldom, alone = (
        epsilon(event=Composed(events=parts), delta=1e-5).epsilon
        for parts in ((training, count), (training, rare), (training,))
    )
    assert alone < seldom < both < alone + 0.5


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: Laplace(noise_multiplier=0.0), "noise_multiplier=0.0"),
        (lambda: DiscreteGaussian(sigma=math.inf, sensitivity=1), "sigma=inf"),
        (lambda: DiscreteGaussian(sigma=1.0, sensitivity=1.5), "sensitivity=1.5"),
        (lambda: Skellam(variance=-1.0, sensitivity=1), "variance=-1.0"),
        (lambda: ExponentialMechanism(epsilon="1"), "epsilon='1'"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(make, culprit):
    """No noise, infinite noise and fractional sensitivities are refused with their value."""
    with pytest.raises(ValueError, match=culprit):
        make()
