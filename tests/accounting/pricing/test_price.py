import math

import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    PoissonSampled,
    Repeated,
    delta,
    epsilon,
)


def run(q: float, sigma: float, times: int) -> Repeated:
    """A sampled Gaussian, repeated."""
    once = PoissonSampled(probability=q, event=Gaussian(noise_multiplier=sigma))
    return Repeated(event=once, times=times)


@pytest.mark.parametrize("method", ["pld", "rdp", "gaussian"])
@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_every_method_prices_a_plain_gaussian(method, adjacency):
    """Closed form and PLD agree exactly; RDP lies above; the guarantee says what was assumed."""
    event = Repeated(event=Gaussian(noise_multiplier=8.0), times=16)
    exact = epsilon(event=event, delta=1e-6, adjacency=adjacency, method="gaussian")
    found = epsilon(event=event, delta=1e-6, adjacency=adjacency, method=method, unit="client")
    assert (found.adjacency, found.unit, found.method) == (adjacency, "client", method)
    if method == "rdp":
        assert exact.epsilon < found.epsilon < exact.epsilon * 1.15
    else:
        assert found.epsilon == exact.epsilon
        assert found.slack == 0


def test_replace_one_is_a_gaussian_with_half_the_noise():
    """Without sampling, replacing a unit moves the sum by 2C: σ counts half."""
    halved = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    replaced = epsilon(
        event=Gaussian(noise_multiplier=2.0), delta=1e-5, adjacency=Adjacency.REPLACE_ONE
    )
    assert replaced.epsilon == pytest.approx(halved.epsilon, rel=1e-12)


def test_the_slack_is_a_certified_distance():
    """ε less its slack is a lower bound: the slack is positive and a tenth of a percent or so."""
    found = epsilon(event=run(0.01, 1.0, 1000), delta=1e-5)
    assert 0 < found.slack < 2e-3 * found.epsilon
    assert found.epsilon - found.slack < 1.8282 < found.epsilon


def test_delta_and_epsilon_go_round():
    """δ(ε(δ)) is δ to a percent, for a composition of different releases."""
    event = Composed(
        events=(run(0.01, 1.0, 500), run(0.02, 1.5, 300), Gaussian(noise_multiplier=3.0))
    )
    priced = epsilon(event=event, delta=1e-6)
    back = delta(event=event, epsilon=priced.epsilon)
    assert back.delta == pytest.approx(1e-6, rel=1e-2)
    assert back.epsilon == priced.epsilon
    assert 0 < back.slack < 2e-3 * back.epsilon


def test_a_composition_agrees_with_dp_accounting():
    """Four different releases together cost what dp-accounting says, to 0.1%."""
    from dp_accounting.pld import privacy_loss_distribution

    def theirs(sigma: float, q: float, times: int):
        once = privacy_loss_distribution.from_gaussian_mechanism(
            sigma, sampling_prob=q, value_discretization_interval=3e-4
        )
        return once.self_compose(times)

    parts = [(1.0, 0.01, 500), (1.5, 0.02, 300), (20.0, 0.5, 10)]
    whole = theirs(3.0, 1.0, 2)
    for sigma, q, times in parts:
        whole = whole.compose(theirs(sigma, q, times))
    event = Composed(
        events=(
            *(run(q, sigma, times) for sigma, q, times in parts),
            Repeated(event=Gaussian(noise_multiplier=3.0), times=2),
        )
    )
    ours = epsilon(event=event, delta=1e-6)
    assert ours.epsilon == pytest.approx(whole.get_epsilon_for_delta(1e-6), rel=1e-3)


@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_no_noise_is_no_privacy(method):
    """σ = 0 has infinite ε and δ = 1, however rarely it is sampled."""
    event = run(0.01, 0.0, 1)
    assert epsilon(event=event, delta=1e-5, method=method).epsilon == math.inf
    assert delta(event=event, epsilon=1.0, method=method).delta == 1.0


def test_no_release_is_free():
    """Nothing released costs ε = 0 and δ = 0."""
    event = run(0.5, 1.0, 0)
    assert epsilon(event=event, delta=1e-5).epsilon == 0
    assert delta(event=event, epsilon=0.0).delta == 0


def test_a_promise_of_delta_zero_is_never_made():
    """Where δ underflows, a positive one is promised still: normal noise has no pure guarantee."""
    assert delta(event=Gaussian(noise_multiplier=1.0), epsilon=1e6).delta > 0


def test_the_closed_form_refuses_sampling():
    """The method "gaussian" names the sampling that it cannot price, and what can."""
    with pytest.raises(ValueError, match=r"probability=0.01.*method='pld'"):
        epsilon(event=run(0.01, 1.0, 10), delta=1e-5, method="gaussian")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"delta": 0.0}, "delta=0.0"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"delta": math.nan}, "delta=nan"),
        ({"delta": 1e-5, "method": "prv"}, "method='prv'"),
        ({"delta": 1e-5, "unit": ""}, "unit is empty"),
        ({"delta": 1e-5, "adjacency": "swap"}, "swap"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, culprit):
    """δ outside (0, 1), an unknown method or adjacency, and an empty unit are named."""
    with pytest.raises(ValueError, match=culprit):
        epsilon(event=run(0.01, 1.0, 10), **arguments)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_delta_needs_a_finite_epsilon(value):
    """δ(ε) of a negative, infinite or NaN ε is refused with the value."""
    with pytest.raises(ValueError, match=f"epsilon={value}"):
        delta(event=run(0.01, 1.0, 10), epsilon=value)
