import math

import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    PoissonSampled,
    Repeated,
    Selected,
    delta,
    epsilon,
    from_dp_event,
    runs_at,
    to_dp_event,
    without_amplification,
)
from dpacc_accounting.selection import halting_chance
from scipy.special import ndtr

POISSON = math.inf
RUN = Repeated(
    event=PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0)), times=1000
)


def slope(search: Selected, share: np.ndarray) -> np.ndarray:
    """f′, the derivative of the generating function of the number of runs."""
    if search.shape == POISSON:
        return search.mean_runs * np.exp(search.mean_runs * (share - 1))
    gamma = halting_chance(event=search)
    return search.mean_runs * (gamma / (1 - (1 - gamma) * share)) ** (1 + search.shape)


@pytest.mark.parametrize("shape", [0, 0.5, 1, 3, POISSON])
@pytest.mark.parametrize("mean", [1.5, 8, 60])
@pytest.mark.parametrize("mu", [0.3, 1.5])
def test_the_largest_of_gaussian_outputs_loses_less_than_the_bound(shape, mean, mu):
    """Choosing the largest or the smallest y has a known law: its δ stays below the bound."""
    search = Selected(event=Gaussian(noise_multiplier=1 / mu), mean_runs=mean, shape=shape)
    y = np.linspace(-12, 12 + mu, 20_001)
    worst = {}
    for at in (0.1, 0.5, 2.0, 5.0):
        found = []
        for order in (1, -1):
            chosen = [
                np.exp(-((y - m) ** 2) / 2)
                / math.sqrt(2 * math.pi)
                * slope(search, ndtr(order * (y - m)))
                for m in (0.0, mu)
            ]
            for one, other in (chosen, chosen[::-1]):
                excess = np.maximum(one - math.exp(at) * other, 0)
                found.append(float(excess.sum() * (y[1] - y[0])))
        worst[at] = max(found)
    for at, exact in worst.items():
        assert exact <= delta(event=search, epsilon=at).delta + 1e-9
        assert exact <= delta(event=search, epsilon=at, method="rdp").delta + 1e-9
    assert max(worst.values()) > 1e-3


@pytest.mark.parametrize(("mean", "shape"), [(10, 1), (10, 0), (100, 0.5), (10, POISSON)])
def test_it_is_below_the_rdp_bound_which_is_dp_accountings(mean, shape):
    """By RDP we agree with dp-accounting to 0.5%; by the profile it costs a tenth less."""
    search = Selected(event=RUN, mean_runs=mean, shape=shape)
    theirs = RdpAccountant().compose(to_dp_event(event=search)).get_epsilon(1e-5)
    by_rdp = epsilon(event=search, delta=1e-5, method="rdp")
    assert by_rdp.epsilon == pytest.approx(theirs, rel=5e-3)
    ours = epsilon(event=search, delta=1e-5)
    once = epsilon(event=RUN, delta=1e-5)
    assert once.epsilon < ours.epsilon < 0.9 * theirs
    # A score that is the same for every run chooses one blindly, at that run's own price.
    assert ours.epsilon - ours.slack == pytest.approx(once.epsilon - once.slack, rel=1e-3)
    assert delta(event=search, epsilon=ours.epsilon).delta == pytest.approx(1e-5, rel=1e-3)


def test_one_run_for_certain_costs_what_it_costs():
    """With E[K] = 1 there is nothing to choose from."""
    for shape in (0, 1, 2.5):
        search = Selected(event=RUN, mean_runs=1, shape=shape)
        assert epsilon(event=search, delta=1e-5).epsilon == epsilon(event=RUN, delta=1e-5).epsilon
        assert runs_at(event=search, quantile=0.99) == 1


def test_more_runs_cost_more():
    """ε grows with the mean number of runs, and nothing released is nothing paid."""
    prices = [
        epsilon(event=Selected(event=RUN, mean_runs=m, shape=1), delta=1e-5).epsilon
        for m in (2, 5, 50)
    ]
    assert prices == sorted(prices)
    nothing = Selected(event=Composed(events=()), mean_runs=9, shape=1)
    assert epsilon(event=nothing, delta=1e-5).epsilon == 0
    bare = Selected(event=Gaussian(noise_multiplier=0.0), mean_runs=9, shape=1)
    assert epsilon(event=bare, delta=1e-5).epsilon == math.inf


@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_very_private_runs_still_pay_for_the_choice(method):
    """Where one run is (0, δ/m)-private, the price of choosing is charged all the same."""
    quiet = Selected(event=Gaussian(noise_multiplier=1e5), mean_runs=9, shape=POISSON)
    found = epsilon(event=quiet, delta=1e-4, method=method)
    assert 0 < found.epsilon < 2e-3


def test_beside_other_events_it_is_priced_by_rdp():
    """A search and a final run compose by Rényi divergence, and the guarantee says so."""
    event = Composed(events=(Selected(event=RUN, mean_runs=5, shape=0), RUN))
    assert epsilon(event=event, delta=1e-5).method == "rdp"
    assert delta(event=event, epsilon=5.0).method == "rdp"
    assert epsilon(event=event.events[0], delta=1e-5).method == "pld"
    sampled = PoissonSampled(probability=0.5, event=event.events[0])
    with pytest.raises(ValueError, match="no Rényi bound"):
        epsilon(event=sampled, delta=1e-5)
    both = epsilon(event=event, delta=1e-5, method="rdp").epsilon
    alone = epsilon(event=event.events[0], delta=1e-5, method="rdp").epsilon
    last = epsilon(event=RUN, delta=1e-5, method="rdp").epsilon
    assert alone < both < alone + last
    for adjacency in Adjacency:
        assert epsilon(event=event, delta=1e-5, adjacency=adjacency, method="rdp").epsilon >= both


@pytest.mark.parametrize(("mean", "shape"), [(6, 1), (6, 0), (6, 2.5), (6, POISSON), (1.2, 0.3)])
def test_the_number_of_runs_has_the_mean_that_is_charged(mean, shape):
    """Over 20,000 evenly spaced quantiles the numbers of runs have the stated mean."""
    search = Selected(event=RUN, mean_runs=mean, shape=shape)
    numbers = [runs_at(event=search, quantile=(k + 0.5) / 20_000) for k in range(20_000)]
    assert np.mean(numbers) == pytest.approx(mean, rel=3e-3)
    assert min(numbers) == (0 if shape == POISSON else 1)
    with pytest.raises(ValueError, match="quantile=1"):
        runs_at(event=search, quantile=1.0)


@pytest.mark.parametrize("shape", [1.0, 0.0, POISSON])
def test_there_and_back_in_dp_accountings_words(shape):
    """The event survives the way to dp-accounting; unamplified, its runs are."""
    search = Selected(event=RUN, mean_runs=5, shape=shape)
    assert from_dp_event(event=to_dp_event(event=search)) == search
    assert without_amplification(event=search).event == without_amplification(event=RUN)


@pytest.mark.parametrize("fields", [{"mean_runs": 0.5}, {"shape": -0.5}, {"mean_runs": math.inf}])
def test_numbers_of_runs_that_mean_nothing_are_refused(fields):
    """A mean below 1 or infinite, or a negative shape, is shown in the error."""
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Selected(**{"event": RUN, "mean_runs": 2, "shape": 1} | fields)
