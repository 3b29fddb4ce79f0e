import itertools
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    Repeated,
    TruncatedPoissonSampled,
    delta,
    epsilon,
    from_dp_event,
    to_dp_event,
    without_amplification,
)
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.pld.truncation import truncation_cases
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.stats import binom

ADD, REPLACE = Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE


def cut(*, q: float, most: int, size: int, sigma: float) -> TruncatedPoissonSampled:
    """A sum over a truncated sample."""
    return TruncatedPoissonSampled(
        probability=q,
        largest_batch=most,
        dataset_size=size,
        event=Gaussian(noise_multiplier=sigma),
    )


def sums(units: list[float], q: float, most: int) -> dict[float, float]:
    """The chance of each sum over a truncated sample of `units`, by listing all samples."""
    found: dict[float, float] = {}
    for drawn in itertools.product([0, 1], repeat=len(units)):
        chance = math.prod(q if one else 1 - q for one in drawn)
        members = [u for u, one in zip(units, drawn, strict=True) if one]
        kept = list(itertools.combinations(members, min(most, len(members))))
        for batch in kept:
            found[sum(batch)] = found.get(sum(batch), 0.0) + chance / len(kept)
    return found


def exact_delta(
    one: dict[float, float], other: dict[float, float], sigma: float, at: float
) -> float:
    """The hockey-stick divergence of two noised sums, by quadrature."""
    z = np.linspace(-20, 20, 40_001)

    def density(law: dict[float, float]) -> np.ndarray:
        return sum(p * np.exp(-((z - s) ** 2) / (2 * sigma**2)) for s, p in law.items()) / (
            sigma * math.sqrt(2 * math.pi)
        )

    return float(np.maximum(density(one) - math.exp(at) * density(other), 0).sum() * (z[1] - z[0]))


@pytest.mark.parametrize("others", [[-1, -1, -1], [1, -1, 1], [0, 0, 0], [-1, 0.5, 1]])
@pytest.mark.parametrize(("q", "most"), [(0.3, 1), (0.5, 2), (0.9, 2), (1.0, 3)])
def test_no_data_lose_more_than_the_bound(others, q, most):
    """Every sample listed by hand: δ of one unit of norm 1 among three stays below the bound."""
    without = sums(others, q, most)
    for at in (0.0, 0.4, 1.2):
        bound = {
            a: delta(event=cut(q=q, most=most, size=4, sigma=1.5), epsilon=at, adjacency=a)
            for a in (ADD, REPLACE)
        }
        for unit in (1.0, -1.0, 0.4):
            given = sums([*others, unit], q, most)
            replaced = sums([*others, -1.0], q, most)
            for pair in ((given, without), (without, given)):
                assert exact_delta(*pair, 1.5, at) <= bound[ADD].delta + 1e-9
            for pair in ((given, replaced), (replaced, given)):
                assert exact_delta(*pair, 1.5, at) <= bound[REPLACE].delta + 1e-9


@pytest.mark.parametrize("at", [1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("most", [7, 9, 12])
def test_rare_large_losses_are_priced_from_both_sides(most, at):
    """ε lies where the two cases' divergences, by quadrature, meet δ; both bounds are next to it.

    A full batch is rare and costs much: a first guess of ε is several times too large.
    """
    event = cut(q=0.02, most=most, size=200, sigma=1.5)
    z = np.linspace(-15, 15, 300_001)

    def exact(epsilon: float) -> float:
        total = 0.0
        for chance, case in truncation_cases(event=event):
            q, sigma = case.probability, case.noise_multiplier
            away, near = (np.exp(-0.5 * ((z - s) / sigma) ** 2) for s in (0.0, 1.0))
            gain = np.maximum((1 - q) * away + q * near - math.exp(epsilon) * away, 0).sum()
            total += chance * float(gain) * (z[1] - z[0]) / (sigma * math.sqrt(2 * math.pi))
        return total

    wanted = brentq(lambda e: exact(e) - at, 0.0, 5.0, xtol=1e-9)
    found = epsilon(event=event, delta=at)
    assert wanted - 1e-7 <= found.epsilon <= wanted * 1.001
    assert found.epsilon - found.slack <= wanted + 1e-7


def test_a_batch_that_is_always_full_has_this_price():
    """With everybody drawn and one kept of four equal others, the bound is met exactly."""
    others = [-1.0] * 3
    given, without = sums([*others, 1.0], 1.0, 3), sums(others, 1.0, 3)
    for at in (0.0, 0.5):
        exact = max(exact_delta(given, without, 1.5, at), exact_delta(without, given, 1.5, at))
        found = delta(event=cut(q=1.0, most=3, size=4, sigma=1.5), epsilon=at).delta
        assert exact - 1e-9 <= found <= exact * (1 + 1e-3)


def told_how_many(units: list[float], others: int) -> list[dict[float, float]]:
    """The chance of each sum of at most two, half of all units being drawn, by listing samples.

    Entry k is for k of the first `others` units being drawn, entry 2 for two or more.
    """
    found: list[dict[float, float]] = [{}, {}, {}]
    for drawn in itertools.product([0, 1], repeat=len(units)):
        members = [unit for unit, one in zip(units, drawn, strict=True) if one]
        kept = list(itertools.combinations(members, min(2, len(members))))
        law = found[min(sum(drawn[:others]), 2)]
        for batch in kept:
            law[sum(batch)] = law.get(sum(batch), 0.0) + 0.5 ** len(units) / len(kept)
    return found


def listed_losses(*, others: int, joins: bool) -> np.ndarray:
    """Chances of the loss of one step, in steps of 1/400 from −40 on.

    A unit of 1 joins, or leaves, others of −1; whoever looks is told how many of these were drawn.
    """
    z = np.linspace(-11, 11, 44_001)
    chances = np.zeros(32_001)
    without = [-1.0] * others
    laws = told_how_many([*without, 1.0], others), told_how_many(without, others)
    for numerator, denominator in zip(*(laws if joins else laws[::-1]), strict=True):
        one, other = (
            sum(p * np.exp(-((z - s) ** 2) / 2) for s, p in law.items()) / math.sqrt(2 * math.pi)
            for law in (numerator, denominator)
        )
        places = np.rint((np.log(one / other) + 40) * 400).astype(int)
        np.add.at(chances, places, one * (z[1] - z[0]))
    return chances


def test_a_composition_costs_what_its_worst_data_cost_with_all_samples_listed():
    """Three steps on four units and two on three, two of which are kept: ε = 16.46 at δ = 1e-6.

    dp-accounting's test states 17.90 for it: a full batch there is priced as if under
    replace-one adjacency, whose other dataset has a unit in the new one's place.
    """
    listed = 0.0
    for joins in (True, False):
        four, three = (listed_losses(others=others, joins=joins) for others in (3, 2))
        composed = np.array([1.0])
        for each in (four, four, four, three, three):
            composed = fftconvolve(composed, each)
        losses = np.arange(len(composed)) / 400 - 5 * 40

        def lost(at: float, composed: np.ndarray = composed, losses: np.ndarray = losses) -> float:
            over = losses > at
            return float((composed[over] * -np.expm1(at - losses[over])).sum())

        listed = max(listed, brentq(lambda at: lost(at) - 1e-6, 0.0, 30.0))
    steps = (cut(q=0.5, most=2, size=size, sigma=1.0) for size in (4, 3))
    parts = [Repeated(event=one, times=times) for one, times in zip(steps, (3, 2), strict=True)]
    event = Composed(events=tuple(parts))
    ours = epsilon(event=event, delta=1e-6).epsilon
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-2)
    theirs = accountant.compose(to_dp_event(event=event)).get_epsilon(1e-6)
    assert listed == pytest.approx(16.46, abs=0.01)
    assert ours == pytest.approx(listed, abs=0.005)
    assert theirs == pytest.approx(17.90, abs=0.02)


@pytest.mark.parametrize("adjacency", [ADD, REPLACE])
def test_dp_accounting_has_no_lower_price(adjacency):
    """Ours meets theirs under replace-one, and is tighter under add-or-remove."""
    event = Repeated(event=cut(q=0.01, most=16, size=1000, sigma=1.0), times=300)
    relation = {ADD: "ADD_OR_REMOVE_ONE", REPLACE: "REPLACE_ONE"}[adjacency]
    accountant = PLDAccountant(NeighboringRelation[relation], 5e-4)
    theirs = accountant.compose(to_dp_event(event=event)).get_epsilon(1e-5)
    ours = epsilon(event=event, delta=1e-5, adjacency=adjacency)
    assert 0.985 * theirs <= ours.epsilon <= 1.0005 * theirs
    assert 0 <= ours.slack <= 2e-3 * ours.epsilon
    if adjacency is ADD:
        assert ours.epsilon < 0.995 * theirs


def test_room_makes_it_a_poisson_sample():
    """Nothing is cut where everybody fits, and next to nothing where the batch has room."""
    plain = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))
    poisson = epsilon(event=Repeated(event=plain, times=300), delta=1e-5)
    fits = cut(q=0.01, most=1000, size=1000, sigma=1.0)
    assert epsilon(event=Repeated(event=fits, times=300), delta=1e-5) == poisson
    roomy = Repeated(event=cut(q=0.01, most=40, size=1000, sigma=1.0), times=300)
    assert epsilon(event=roomy, delta=1e-5).epsilon == pytest.approx(poisson.epsilon, rel=1e-3)
    tight = Repeated(event=cut(q=0.01, most=10, size=1000, sigma=1.0), times=300)
    assert epsilon(event=tight, delta=1e-5).epsilon > 5 * poisson.epsilon


def test_small_samples_of_large_data_are_resolved():
    """q = 1e-4 over 30,000 steps with room for twice the batch: Poisson's price, to 0.1%."""
    event = Repeated(event=cut(q=1e-4, most=200, size=10**6, sigma=0.6), times=30_000)
    found = epsilon(event=event, delta=1e-6)
    plain = PoissonSampled(probability=1e-4, event=Gaussian(noise_multiplier=0.6))
    poisson = epsilon(event=Repeated(event=plain, times=30_000), delta=1e-6)
    assert found.epsilon == pytest.approx(poisson.epsilon, rel=1e-3)
    assert found.slack < 2e-3 * found.epsilon


def test_the_chances_are_those_of_the_binomial_law():
    """How often the batch is full, and how often the unit is kept then, by summing over K."""
    q, most, size = 0.02, 30, 1000
    k = np.arange(most, size)
    chances = binom.pmf(k, size - 1, q)
    (room, whole), (full, half) = truncation_cases(event=cut(q=q, most=most, size=size, sigma=2.0))
    assert whole == Release(q, 2.0)
    assert room + full == 1
    assert full == pytest.approx(chances.sum(), rel=1e-9)
    kept = (chances * q * most / (k + 1)).sum() / chances.sum()
    assert half == Release(pytest.approx(kept, rel=1e-9), 1.0)


def test_its_probability_zero_and_its_noise_zero():
    """Nobody drawn costs nothing; no noise protects nobody."""
    assert epsilon(event=cut(q=0.0, most=2, size=9, sigma=0.0), delta=1e-5).epsilon == 0
    assert epsilon(event=cut(q=0.5, most=2, size=9, sigma=0.0), delta=1e-5).epsilon == math.inf


def test_what_cannot_be_priced_is_refused_with_the_remedy():
    """Other noise, a sample inside the batch, or the batch inside another sample."""
    fields = {"probability": 0.5, "largest_batch": 2, "dataset_size": 9}
    noisy = Gaussian(noise_multiplier=1.0)
    for inner in (Laplace(noise_multiplier=1.0), PoissonSampled(probability=0.1, event=noisy)):
        with pytest.raises(ValueError, match="around Gaussian sums only"):
            epsilon(event=TruncatedPoissonSampled(**fields, event=inner), delta=1e-5)
    inside = Composed(events=(TruncatedPoissonSampled(**fields, event=noisy),))
    with pytest.raises(ValueError, match="draw one sample"):
        epsilon(event=PoissonSampled(probability=0.1, event=inside), delta=1e-5)


def test_without_amplification_a_full_batch_halves_the_noise():
    """Whoever knows the sample sees the unit stand in another's place."""
    bare = without_amplification(event=cut(q=1.0, most=3, size=4, sigma=2.0))
    assert bare == Mixture(weights=(1.0,), events=(Gaussian(noise_multiplier=1.0),))
    roomy = without_amplification(event=cut(q=0.5, most=4, size=4, sigma=2.0))
    assert roomy == Gaussian(noise_multiplier=2.0)


def test_there_and_back_in_dp_accountings_words():
    """The event survives the way to dp-accounting and back."""
    event = cut(q=0.1, most=7, size=40, sigma=1.5)
    there = to_dp_event(event=event)
    assert isinstance(there, dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent)
    assert from_dp_event(event=there) == event
