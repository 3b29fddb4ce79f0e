import math

import numpy as np
import pytest
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as reference
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    Mixture,
    PoissonSampled,
    Repeated,
    delta,
    epsilon,
)
from dpacc_accounting.gaussian import gaussian_delta
from dpacc_accounting.pld.amplification import without_amplification
from hypothesis import given, settings
from hypothesis import strategies as st

NOTHING = Composed(events=())


def sampled(probability: float, sigma: float, times: int = 1) -> Repeated:
    """So many Poisson-sampled Gaussians."""
    step = PoissonSampled(probability=probability, event=Gaussian(noise_multiplier=sigma))
    return Repeated(event=step, times=times)


def hidden(chance: float, event: Repeated | Gaussian | Composed | Mixture) -> Mixture:
    """`event`, run with a hidden chance."""
    return Mixture(weights=(chance, 1 - chance), events=(event, NOTHING))


def mixed_with_nothing(law: pld_pmf.PLDPmf, chance: float, interval: float) -> pld_pmf.DensePLDPmf:
    """dp-accounting's law with probability `chance`, a loss of 0 otherwise."""
    dense = law.to_dense_pmf()
    lowest = min(dense._lower_loss, 0)
    size = max(dense._lower_loss + len(dense._probs), 1) - lowest
    probabilities = np.zeros(size)
    start = dense._lower_loss - lowest
    probabilities[start : start + len(dense._probs)] = chance * np.array(dense._probs)
    probabilities[-lowest] += 1 - chance
    return pld_pmf.DensePLDPmf(
        interval, lowest, probabilities, chance * dense._infinity_mass, dense._pessimistic_estimate
    )


def reference_epsilon(
    q: float, sigma: float, steps: int, chance: float, rounds: int, *, pessimistic: bool
) -> float:
    """ε at δ = 1e-5 from dp-accounting's laws, mixed by hand."""
    interval = 1e-3
    inner = reference.from_gaussian_mechanism(
        sigma,
        sampling_prob=q,
        value_discretization_interval=interval,
        pessimistic_estimate=pessimistic,
    ).self_compose(steps)
    mixed = reference.PrivacyLossDistribution(
        mixed_with_nothing(inner._pmf_remove, chance, interval),
        mixed_with_nothing(inner._pmf_add, chance, interval),
    )
    return float(mixed.self_compose(rounds).get_epsilon_for_delta(1e-5))


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "chance", "rounds"),
    [
        (0.1, 1.0, 10, 0.1, 100),
        (0.1, 1.0, 5, 0.3, 10),
        (0.1, 2.0, 50, 0.1, 50),
        (0.01, 0.7, 20, 0.5, 30),
        (1.0, 3.0, 1, 0.2, 40),
    ],
)
def test_hidden_rounds_agree_with_laws_mixed_by_hand(q, sigma, steps, chance, rounds):
    """Hidden rounds cost what dp-accounting's laws, mixed and composed, cost."""
    event = Repeated(event=hidden(chance, sampled(q, sigma, steps)), times=rounds)
    ours = epsilon(event=event, delta=1e-5)
    high = reference_epsilon(q, sigma, steps, chance, rounds, pessimistic=True)
    low = reference_epsilon(q, sigma, steps, chance, rounds, pessimistic=False)
    assert low <= ours.epsilon * (1 + 1e-9)
    assert ours.epsilon <= high * 1.002
    assert ours.epsilon - ours.slack <= high
    assert ours.slack <= 2e-3 * ours.epsilon


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("chance", [0.9, 0.1, 1e-6])
@pytest.mark.parametrize("at", [0.0, 1.0, 6.0])
def test_one_hidden_gaussian_has_a_closed_form(adjacency, chance, at):
    """A Gaussian run with chance c has δ(ε) = c times the Gaussian's, in both adjacencies."""
    mu = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    event = hidden(chance, Gaussian(noise_multiplier=1.0))
    found = delta(event=event, epsilon=at, adjacency=adjacency).delta
    exact = chance * gaussian_delta(mu=mu, epsilon=at)
    assert exact <= found <= exact * 1.01


def test_a_mixture_of_two_noises_has_a_closed_form():
    """δ of one Gaussian or another, by a coin, is the mean of both δ, and nests."""
    loud, quiet = Gaussian(noise_multiplier=2.0), Gaussian(noise_multiplier=0.5)
    flat = Mixture(weights=(0.3, 0.2, 0.5), events=(loud, quiet, NOTHING))
    nested = hidden(0.5, Mixture(weights=(0.6, 0.4), events=(loud, quiet)))
    exact = 0.3 * gaussian_delta(mu=0.5, epsilon=1.0) + 0.2 * gaussian_delta(mu=2.0, epsilon=1.0)
    for event in (flat, nested):
        assert exact <= delta(event=event, epsilon=1.0).delta <= exact * 1.01


def test_a_coin_that_always_falls_on_one_side_changes_nothing():
    """Weight 1 prices as the event itself, weight 0 as nothing."""
    steps = sampled(0.05, 1.0, 30)
    certain = Mixture(weights=(1.0, 0.0), events=(steps, Gaussian(noise_multiplier=0.0)))
    plain = epsilon(event=steps, delta=1e-6)
    found = epsilon(event=certain, delta=1e-6)
    assert plain.epsilon - plain.slack <= found.epsilon <= plain.epsilon * 1.002
    assert epsilon(event=hidden(0.0, steps), delta=1e-6).epsilon == 0.0
    assert delta(event=hidden(0.0, steps), epsilon=0.0).delta < 1e-300


def test_a_rare_coin_hides_everything():
    """Where the chance of taking part in any round is at most δ, ε is 0."""
    event = Repeated(event=hidden(1e-7, Gaussian(noise_multiplier=0.01)), times=10)
    assert epsilon(event=event, delta=1e-6).epsilon == 0.0


def test_rates_may_not_be_multiplied():
    """Ten steps behind one client coin cost far more than ten steps with a coin each."""
    together = Repeated(event=hidden(0.01, sampled(0.1, 1.0, 10)), times=100)
    apart = sampled(0.001, 1.0, 1000)
    assert (
        epsilon(event=together, delta=1e-5).epsilon > 3 * epsilon(event=apart, delta=1e-5).epsilon
    )


def test_a_hidden_coin_costs_at_least_a_sample_without_the_unit():
    """The mixture covers every alternative run: it is never below Poisson sampling's own pair."""
    mixture = epsilon(
        event=Repeated(event=hidden(0.2, Gaussian(noise_multiplier=1.5)), times=20), delta=1e-5
    )
    poisson = epsilon(event=sampled(0.2, 1.5, 20), delta=1e-5)
    assert mixture.epsilon - mixture.slack > poisson.epsilon


@settings(max_examples=15, deadline=None)
@given(
    st.floats(0.01, 0.9),
    st.floats(0.6, 4.0),
    st.integers(1, 20),
    st.integers(1, 60),
    st.sampled_from(Adjacency),
)
def test_more_participation_costs_more_and_never_more_than_all(chance, sigma, steps, rounds, where):
    """ε rises with the hidden chance, and stays below the ε of taking part every time."""
    inner = sampled(0.1, sigma, steps)
    low, high = (
        epsilon(event=Repeated(event=hidden(c, inner), times=rounds), delta=1e-6, adjacency=where)
        for c in (chance, min(1.1 * chance, 1.0))
    )
    always = epsilon(event=Repeated(event=inner, times=rounds), delta=1e-6, adjacency=where)
    assert 0 <= low.slack <= low.epsilon
    assert low.epsilon - low.slack <= high.epsilon
    assert low.epsilon - low.slack <= always.epsilon


def test_a_small_delta_keeps_its_digits():
    """At δ = 1e-12 the certified interval is still narrow."""
    event = Repeated(event=hidden(0.1, sampled(0.1, 1.0, 10)), times=100)
    found = epsilon(event=event, delta=1e-12)
    assert 0 < found.slack < 2e-3 * found.epsilon


def test_mixtures_compose_with_other_events_in_any_order():
    """A mixture beside Gaussians costs the same whichever comes first, and more than alone."""
    parts = (sampled(0.02, 1.0, 100), Repeated(event=hidden(0.3, sampled(0.1, 1.0)), times=20))
    there = epsilon(event=Composed(events=parts), delta=1e-5).epsilon
    back = epsilon(event=Composed(events=parts[::-1]), delta=1e-5).epsilon
    assert there == pytest.approx(back, rel=1e-9)
    assert there > max(epsilon(event=part, delta=1e-5).epsilon for part in parts)


def test_simulated_losses_agree_with_delta():
    """δ of 12 hidden rounds is what a million simulated privacy losses give."""
    rng, sigma, chance, rounds, at = np.random.default_rng(3), 1.2, 0.3, 12, 2.0
    runs = rng.binomial(rounds, chance, size=1_000_000)
    losses = runs / (2 * sigma**2) + np.sqrt(runs) / sigma * rng.standard_normal(len(runs))
    gains = np.maximum(-np.expm1(at - losses), 0.0)
    error = 4 * float(gains.std()) / math.sqrt(len(gains))
    event = Repeated(event=hidden(chance, Gaussian(noise_multiplier=sigma)), times=rounds)
    found = delta(event=event, epsilon=at).delta
    assert abs(found - float(gains.mean())) <= error + 0.002 * found


def test_no_noise_behind_a_coin_is_no_privacy():
    """σ = 0 in any branch that may run leaves ε infinite and δ at the chance of running it."""
    event = hidden(0.25, Gaussian(noise_multiplier=0.0))
    assert epsilon(event=event, delta=1e-5).epsilon == math.inf
    assert delta(event=event, epsilon=3.0).delta == 0.25


def test_the_closed_form_refuses_a_mixture():
    """A mixture of Gaussians is none; the error says so by name."""
    with pytest.raises(ValueError, match=r"Mixture.*pld"):
        epsilon(event=hidden(0.5, Gaussian(noise_multiplier=1.0)), delta=1e-5, method="gaussian")


def test_without_amplification_a_mixture_counts_in_full():
    """Who knows the coins may have seen every branch."""
    inner = sampled(0.1, 1.0)
    bare = without_amplification(event=hidden(0.1, inner))
    known = Repeated(event=Gaussian(noise_multiplier=1.0), times=1)
    assert bare == Composed(events=(known, NOTHING))


@pytest.mark.parametrize("weights", [(0.5,), (0.5, 0.6), (-0.5, 1.5), (math.nan, 1.0)])
def test_weights_that_are_no_chances_are_refused(weights):
    """Weights that do not match the events, or are no chances that add up to 1, are refused."""
    with pytest.raises(ValueError, match="weights"):
        Mixture(weights=weights, events=(Gaussian(noise_multiplier=1.0), NOTHING))
