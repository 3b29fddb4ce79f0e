"""Attack figures of whole events bound the attacks that can be computed, and hardly exceed them."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency, Gaussian, PoissonSampled, Repeated, delta
from dpacc_accounting.attacks.best_attack import (
    attack_advantage,
    attack_risk,
    bayes_error,
    positive_predictive_value,
    true_positive_rate,
)
from dpacc_accounting.attacks.tradeoff import tradeoff_curve
from dpacc_accounting.gaussian import gaussian_delta
from scipy.stats import norm


def _training(rate: float, sigma: float, steps: int) -> Repeated:
    step = PoissonSampled(probability=rate, event=Gaussian(noise_multiplier=sigma))
    return Repeated(event=step, times=steps)


def _removal_power(rate: float, sigma: float, alarms: np.ndarray) -> np.ndarray:
    """The likelihood-ratio test of N(0, σ²) against (1 − q)·N(0, σ²) + q·N(1, σ²)."""
    threshold = norm.isf(alarms)
    return (1 - rate) * alarms + rate * norm.sf(threshold - 1 / sigma)


@pytest.mark.parametrize(("rate", "sigma"), [(0.1, 1.0), (0.5, 0.6), (0.01, 0.4), (0.9, 3.0)])
def test_one_sampled_release_allows_its_best_attack_and_hardly_more(rate, sigma):
    """The exact optimal test never beats the bound; where it is the worse way round, it meets it.

    The bound covers adding and removing at once, so it may exceed either by the hull of the two.
    """
    event = _training(rate, sigma, 1)
    alarms = np.array([1e-6, 1e-4, 1e-3, 0.01, 0.1])
    power = _removal_power(rate, sigma, alarms)
    bound = [true_positive_rate(event=event, false_positives=float(a)) for a in alarms]
    assert (power <= np.array(bound) * (1 + 1e-12)).all()
    assert bound[0] <= power[0] * 1.001
    assert bound[1] <= power[1] * 1.001


@pytest.mark.parametrize("alarms", [1e-5, 1e-3, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_gaussians_are_exact(alarms, sigma):
    """Four unsampled Gaussians allow exactly Φ(Φ⁻¹(α) + μ), twice that μ when one is replaced."""
    event = Repeated(event=Gaussian(noise_multiplier=2 * sigma), times=4)
    for adjacency, mu in (("add-or-remove", 1 / sigma), ("replace-one", 2 / sigma)):
        found = true_positive_rate(event=event, false_positives=alarms, adjacency=adjacency)
        assert found == pytest.approx(norm.cdf(norm.ppf(alarms) + mu), rel=1e-9)
        curve = tradeoff_curve(event=event, adjacency=adjacency, points=5)
        assert 1 - curve.false_negatives(false_positives=alarms) == pytest.approx(found, rel=1e-9)
        assert curve.gaussian_equivalent() == (pytest.approx(mu), 0.0)


@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize(
    ("rate", "sigma", "steps"), [(0.4, 5.0, 60), (0.05, 0.5, 2), (0.01, 1, 900)]
)
def test_curve_and_search_agree(rate, sigma, steps, adjacency):
    """The curve of 33 lines is convex, symmetric, and barely below what a search finds."""
    event = _training(rate, sigma, steps)
    curve = tradeoff_curve(event=event, adjacency=adjacency)
    alarms = np.concatenate([np.geomspace(1e-7, 0.1, 30), np.linspace(0.1, 1, 31)[1:]])
    missed = np.array([curve.false_negatives(false_positives=float(a)) for a in alarms])
    assert (np.diff(missed) <= 1e-12).all()
    assert (np.diff(np.diff(missed) / np.diff(alarms)) >= -1e-6).all()
    for at in (10, 40):
        again = curve.false_negatives(false_positives=float(missed[at]))
        assert again <= alarms[at] + 1e-9
        found = true_positive_rate(
            event=event, false_positives=float(alarms[at]), adjacency=adjacency
        )
        assert found <= (1 - missed[at]) * 1.001
        assert found >= (1 - missed[at]) * 0.95
        assert found >= alarms[at]


@pytest.mark.parametrize(
    ("rate", "sigma", "steps"), [(0.4, 5.0, 60), (0.05, 0.5, 2), (0.01, 1, 900)]
)
def test_the_gaussian_equivalent_covers_every_epsilon(rate, sigma, steps):
    """δ(ε) <= δ_μ(ε) + β at ε between the curve's points and beyond; 2% less μ would not do."""
    event = _training(rate, sigma, steps)
    curve = tradeoff_curve(event=event)
    mu, beyond = curve.gaussian_equivalent()
    assert 0 < beyond <= 1.01e-9
    top = curve.points[-1][0]
    between = top * np.linspace(0.01, 1.2, 18)
    exact = [delta(event=event, epsilon=float(each)).delta for each in between]
    assert all(
        d <= gaussian_delta(mu=mu, epsilon=float(e)) + beyond
        for e, d in zip(between, exact, strict=True)
    )
    assert any(
        d > gaussian_delta(mu=0.98 * mu, epsilon=float(e)) + beyond
        for e, d in zip(between, exact, strict=True)
    )


def test_many_rare_releases_become_gaussian():
    """q = 0.01, σ = 1, T = 1000 is nearly μ = q·√(T·(e − 1)) = 0.41, as the central limit says."""
    curve = tradeoff_curve(event=_training(0.01, 1.0, 1000))
    limit = 0.01 * math.sqrt(1000 * math.expm1(1.0))
    assert limit < curve.gaussian_equivalent()[0] < 1.25 * limit
    assert curve.points[0][1] == pytest.approx(2 * norm.cdf(limit / 2) - 1, rel=0.02)


def test_the_advantage_is_total_variation():
    """One sampled release has advantage q·(2Φ(1/2σ) − 1), and no noise has 1."""
    event = _training(0.2, 0.7, 1)
    assert attack_advantage(event=event) == pytest.approx(0.2 * (2 * norm.cdf(0.5 / 0.7) - 1))
    assert attack_advantage(event=Gaussian(noise_multiplier=0.0)) == 1.0


@pytest.mark.parametrize("prior", [0.01, 0.3, 0.5, 0.8])
def test_bayes_risk_is_the_least_average_error(prior):
    """No threshold on a Gaussian errs less than the Bayes risk, and the best one reaches it."""
    mu = 1.3
    thresholds = np.linspace(-20, 20, 400_001)
    errors = prior * norm.cdf(thresholds - mu) + (1 - prior) * norm.sf(thresholds)
    found = bayes_error(event=Gaussian(noise_multiplier=1 / mu), prior=prior)
    assert found <= errors.min() + 1e-12
    assert found == pytest.approx(errors.min(), rel=1e-6)


def test_certain_priors_and_rates_leave_nothing_to_learn():
    """A prior of 0 or 1 has Bayes risk 0, and rates of 0 and 1 stay within their bounds."""
    event = _training(0.05, 0.8, 50)
    assert bayes_error(event=event, prior=0.0) == bayes_error(event=event, prior=1.0) == 0
    assert true_positive_rate(event=event, false_positives=1.0) == 1
    assert 0 <= true_positive_rate(event=event, false_positives=0.0) < 1e-12
    nothing = Repeated(event=Gaussian(noise_multiplier=1.0), times=0)
    assert true_positive_rate(event=nothing, false_positives=0.25) == 0.25
    assert positive_predictive_value(event=nothing, false_positives=0.25, prior=0.1) == (
        pytest.approx(0.1)
    )


def test_a_high_false_positive_rate_is_the_mirrored_attack():
    """τ(1 − τ(α)) = 1 − α: swapping the datasets swaps the errors, also far from the middle."""
    event = _training(0.05, 0.5, 100)
    caught = true_positive_rate(event=event, false_positives=0.001)
    back = true_positive_rate(event=event, false_positives=1 - caught)
    assert back == pytest.approx(0.999, abs=2e-5)


def test_a_risk_says_what_it_assumed():
    """The result holds the event, adjacency, unit and method, and the figures of one attack."""
    event = _training(0.01, 1.0, 100)
    risk = attack_risk(event=event, prior=0.1, adjacency=Adjacency.REPLACE_ONE, unit="patient")
    assert (risk.event, risk.adjacency, risk.unit) == (event, Adjacency.REPLACE_ONE, "patient")
    assert risk.method == "pld"
    assert risk.advantage == attack_advantage(event=event, adjacency=Adjacency.REPLACE_ONE)
    right = 0.1 * risk.true_positives
    assert risk.predictive_value == pytest.approx(right / (right + 0.9 * 0.01))
    assert risk.error < 0.1


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda e: true_positive_rate(event=e, false_positives=1.5), "false_positives=1.5"),
        (lambda e: bayes_error(event=e, prior=-0.1), "prior=-0.1"),
        (lambda e: tradeoff_curve(event=e, points=1), "points=1"),
        (lambda e: attack_risk(event=e, prior=math.nan), "prior=nan"),
    ],
)
def test_rates_out_of_range_are_refused_in_one_line(call, culprit):
    """An impossible rate is named with its value."""
    with pytest.raises(ValueError, match=culprit) as caught:
        call(Gaussian(noise_multiplier=1.0))
    assert "\n" not in str(caught.value)
