import functools
import json
import logging
import math
import random
from pathlib import Path

import numpy as np
import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.pricing.certified_bounds import delta_bounds, epsilon_bounds
from dpacc_accounting.renyi.sampled_gaussian import rdp_epsilon
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

ADD = Adjacency.ADD_OR_REMOVE
REPLACE = Adjacency.REPLACE_ONE
REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text())

# The double-precision rounding of an untilted Fourier power, relative to its largest term.
FFT_ROUNDING = 2e-16


@functools.cache
def referred(index):
    """Our interval for the reference setting of that number."""
    return epsilon_of(REFERENCE[index])


def epsilon_of(setting, adjacency=ADD):
    """Our interval for a reference setting."""
    release = Release(setting["probability"], setting["noise_multiplier"])
    counts = {release: setting["times"]}
    return epsilon_bounds(counts=counts, adjacency=adjacency, delta=setting["delta"])


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "epsilon"),
    [(0.01, 1.0, 1000, 1.8282), (0.01, 0.3, 1000, 69.8), (256 / 67349, 0.46358, 789, 8.0)],
)
def test_published_values(q, sigma, steps, epsilon):
    """ε at δ = 1e-5 of well-known runs is found to 0.05%."""
    bounds = epsilon_bounds(counts={Release(q, sigma): steps}, adjacency=ADD, delta=1e-5)
    assert bounds.low <= epsilon * 1.0005
    assert bounds.high == pytest.approx(epsilon, rel=5e-4)


def test_five_hundred_settings_agree_with_dp_accounting():
    """Our ε is never below dp-accounting's optimistic one, nor 0.2% above its pessimistic one.

    Our lower bound may exceed its pessimistic value only where the rounding of its untilted
    transform, about times·2e-16, is more than a thousandth of δ.
    """
    assert len(REFERENCE) >= 500
    for index, setting in enumerate(REFERENCE):
        bounds = referred(index)
        assert bounds.high >= setting["optimistic"], setting
        assert bounds.high <= setting["pessimistic"] * 1.002, setting
        if setting["times"] * FFT_ROUNDING < 1e-3 * setting["delta"]:
            assert bounds.low <= setting["pessimistic"] * (1 + 1e-9), setting


def test_the_interval_is_narrow():
    """Over the reference settings the certified interval is half a thousandth wide in median."""
    widths = [
        (bounds.high - bounds.low) / bounds.high
        for bounds in map(referred, range(100))
        if bounds.high > 0
    ]
    assert len(widths) > 50
    assert np.median(widths) < 5e-4
    assert max(widths) < 1e-2


def test_the_reference_is_what_dp_accounting_says(request):
    """A few reference values, computed afresh by the installed dp-accounting, are as recorded.

    But for its Fourier transforms, which round otherwise on other processors.
    """
    from dp_accounting.pld import privacy_loss_distribution

    request.addfinalizer(functools.partial(logging.disable, logging.root.manager.disable))
    logging.disable(logging.WARNING)
    quick = [s for s in REFERENCE if s["settled"] and s["times"] < 1000 and s["step"] > 1e-4]
    assert len(quick) >= 10
    for setting in random.Random(1).sample(quick, 5):
        once = privacy_loss_distribution.from_gaussian_mechanism(
            setting["noise_multiplier"],
            sampling_prob=setting["probability"],
            value_discretization_interval=setting["step"],
            log_mass_truncation_bound=-80,
        )
        whole = once.self_compose(setting["times"]) if setting["times"] > 1 else once
        assert whole.get_epsilon_for_delta(setting["delta"]) == pytest.approx(
            setting["pessimistic"], rel=1e-6
        )


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.01, 1.0, 100), (0.3, 2.0, 50), (1.0, 5.0, 9)])
def test_replace_one_agrees_with_dp_accounting(q, sigma, steps):
    """Under replace-one adjacency our interval holds dp-accounting's pessimistic ε, to 0.3%."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    once = privacy_loss_distribution.from_gaussian_mechanism(
        sigma,
        sensitivity=1,
        sampling_prob=q,
        value_discretization_interval=1e-4,
        neighboring_relation=NeighboringRelation.REPLACE_ONE,
    )
    theirs = once.self_compose(steps).get_epsilon_for_delta(1e-6)
    ours = epsilon_bounds(counts={Release(q, sigma): steps}, adjacency=REPLACE, delta=1e-6)
    assert ours.low <= theirs * (1 + 1e-6)
    assert ours.high == pytest.approx(theirs, rel=3e-3)


@pytest.mark.parametrize("direction", ["remove", "add"])
def test_delta_agrees_with_simulation(direction):
    """δ of 20 releases lies within five standard errors of a Monte Carlo estimate."""
    q, sigma, times, epsilon, draws = 0.2, 1.0, 20, 1.5, 100_000
    rng = np.random.default_rng(7)
    taking_part = rng.random((draws, times)) < (q if direction == "remove" else 0.0)
    sums = rng.standard_normal((draws, times)) * sigma + taking_part
    loss = np.log1p(q * np.expm1((2 * sums - 1) / (2 * sigma**2))).sum(axis=1)
    loss = loss if direction == "remove" else -loss
    gains = np.maximum(-np.expm1(epsilon - loss), 0.0)
    error = 5 * gains.std() / math.sqrt(draws)
    bounds = delta_bounds(counts={Release(q, sigma): times}, adjacency=ADD, epsilon=epsilon)
    assert gains.mean() - error <= bounds.high
    if direction == "remove":
        assert bounds.low <= gains.mean() + error


settings_of_training = st.fixed_dictionaries(
    {
        "noise_multiplier": st.floats(-1, 2.5).map(math.exp),
        "probability": st.floats(-9, -0.01).map(math.exp),
        "times": st.floats(0, 10).map(math.exp).map(int),
        "delta": st.floats(-21, -5).map(math.exp),
    }
)


@settings(max_examples=25, deadline=None)
@given(
    settings_of_training,
    st.sampled_from(["noise_multiplier", "probability", "times", "delta"]),
    st.floats(1.01, 3.0),
    st.sampled_from(list(Adjacency)),
)
def test_epsilon_is_monotone(setting, name, factor, adjacency):
    """More noise or a larger δ never costs more; more sampling or more steps never less."""
    other = setting | {name: setting[name] * factor}
    if name == "times":
        other[name] = setting[name] + int(10 * factor)
    if name == "probability":
        other[name] = min(other[name], 1.0)
    cheap, dear = (other, setting) if name in ("noise_multiplier", "delta") else (setting, other)
    cheap, dear = epsilon_of(cheap, adjacency), epsilon_of(dear, adjacency)
    assert cheap.low <= dear.high
    assert cheap.high <= dear.high * 1.001 + 1e-9


@settings(max_examples=25, deadline=None)
@given(settings_of_training, st.sampled_from(list(Adjacency)))
def test_renyi_is_never_below(setting, adjacency):
    """The independent Rényi bound is never below the PLD interval's upper end."""
    release = Release(setting["probability"], setting["noise_multiplier"])
    renyi = rdp_epsilon(
        counts={release: setting["times"]}, adjacency=adjacency, delta=setting["delta"]
    )
    bounds = epsilon_of(setting, adjacency)
    assert bounds.low <= bounds.high <= renyi * (1 + 1e-3) + 1e-12


@settings(max_examples=15, deadline=None)
@given(settings_of_training, settings_of_training)
def test_the_order_of_composition_does_not_matter(one, other):
    """A then B costs what B then A costs, and no less than either alone."""
    delta = one["delta"]
    parts = [(Release(s["probability"], s["noise_multiplier"]), s["times"]) for s in (one, other)]
    assume(parts[0][0] != parts[1][0])
    there = epsilon_bounds(counts=dict(parts), adjacency=ADD, delta=delta)
    back = epsilon_bounds(counts=dict(parts[::-1]), adjacency=ADD, delta=delta)
    assert there.high == pytest.approx(back.high, rel=1e-6)
    for release, times in parts:
        alone = epsilon_bounds(counts={release: times}, adjacency=ADD, delta=delta)
        assert alone.low <= there.high


@settings(max_examples=25, deadline=None)
@given(settings_of_training, st.sampled_from(list(Adjacency)))
def test_delta_goes_back_to_epsilon(setting, adjacency):
    """δ(ε(δ)) is δ within the interval's own width."""
    release = Release(setting["probability"], setting["noise_multiplier"])
    epsilon = epsilon_of(setting, adjacency).high
    back = delta_bounds(counts={release: setting["times"]}, adjacency=adjacency, epsilon=epsilon)
    assert back.low <= setting["delta"] * (1 + 1e-6)
    assert back.high <= setting["delta"] * 1.02
    if epsilon > 0:
        assert back.high >= setting["delta"] * 0.95


@pytest.mark.parametrize("delta", [1e-12, 1e-5])
def test_a_huge_price_is_that_of_its_worst_direction(delta):
    """Half a dataset, ten million times, hardly noised: ε is near T/2σ² of half the steps.

    Adding a unit costs at most T·ln 2 there, on whatever grid it is compared.
    """
    bounds = epsilon_bounds(counts={Release(0.5, 0.05): 10**7}, adjacency=ADD, delta=delta)
    assert bounds.high == pytest.approx(10**7 * 0.5 / (2 * 0.05**2), rel=0.01)


def test_losses_that_are_rare_but_large_are_priced_tightly():
    """Of a unit that takes part with chance 1e-4 in all, δ = 1e-12 sees the tail of joining twice.

    Two joins have chance 5e-9 and a normal loss of mean 2·(ln q + μ²/2) and variance 2μ², μ = 1/σ.
    """
    bounds = epsilon_bounds(counts={Release(1e-7, 0.025): 1000}, adjacency=ADD, delta=1e-12)
    twice = math.comb(1000, 2) * 1e-14
    place = 2 * (math.log(1e-7) + 40**2 / 2) + norm.isf(1e-12 / twice) * 40 * math.sqrt(2)
    assert bounds.low > 0.999 * bounds.high
    assert bounds.high == pytest.approx(place, rel=0.005)
