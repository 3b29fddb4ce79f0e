"""Events with few losses, against sums over all their outcomes."""

from __future__ import annotations

import itertools
import math
import random

import dp_accounting
import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    ApproximateDP,
    Composed,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Gaussian,
    PermuteAndFlip,
    PoissonSampled,
    RandomizedResponse,
    Repeated,
    TruncatedDiscreteGaussian,
    delta,
    epsilon,
    event_from_json,
    event_to_json,
)
from dpacc_accounting.events.descriptions import described
from dpacc_accounting.renyi.divergence import event_rdp_epsilon
from numpy.typing import NDArray

ADD, REPLACE = Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE
Law = NDArray[np.float64]
NEW: list[Event] = [
    ApproximateDP(epsilon=0.5, delta=1e-3),
    RandomizedResponse(noise=0.4, options=3),
    DiscreteLaplace(decay=0.3, sensitivity=2),
    PermuteAndFlip(epsilon=0.7),
    TruncatedDiscreteGaussian(sigma=2.0, sensitivity=1, bound=9),
]


def exact_delta(p: Law, q: Law, at: float) -> float:
    """The larger hockey-stick divergence of two laws on the same outcomes."""
    ways = ((p, q), (q, p))
    return max(float(np.maximum(one - math.exp(at) * other, 0).sum()) for one, other in ways)


def outputs(event: Event, adjacency: Adjacency) -> tuple[Law, Law]:
    """What two neighbours' outputs are, outcome by outcome."""
    match event:
        case ApproximateDP(epsilon=e, delta=d):
            truth = (1 - d) / (1 + math.exp(-e))
            lie = 1 - d - truth
            return np.array([d, 0, truth, lie]), np.array([0, d, lie, truth])
        case RandomizedResponse(noise=noise, options=k):
            each = np.full(k, noise / k)
            one, other = each.copy(), each.copy()
            one[0] += 1 - noise
            other[1] += 1 - noise
            return one, other
        case DiscreteLaplace(decay=decay, sensitivity=most):
            shift = most * (2 if adjacency is REPLACE else 1)
            k = np.arange(-300.0, 301.0 + shift)
            noise = np.tanh(decay / 2) * np.exp(-decay * np.abs(k))
            return noise, np.tanh(decay / 2) * np.exp(-decay * np.abs(k - shift))
        case TruncatedDiscreteGaussian(sigma=sigma, sensitivity=most, bound=bound):
            shift = most * (2 if adjacency is REPLACE else 1)
            k = np.arange(-bound, bound + 1 + shift)
            one, other = (np.exp(-(x**2) / (2 * sigma**2)) for x in (k, k - shift))
            return (
                np.where(k <= bound, one, 0) / one[k <= bound].sum(),
                np.where(k - shift >= -bound, other, 0) / one[k <= bound].sum(),
            )
    raise AssertionError(event)


def product(law: Law, times: int) -> Law:
    found = np.ones(1)
    for _ in range(times):
        found = np.outer(found, law).ravel()
    return found


LISTED = [
    (ApproximateDP(epsilon=0.5, delta=1e-3), ADD, 5),
    (ApproximateDP(epsilon=1.0, delta=0.0), REPLACE, 6),
    (RandomizedResponse(noise=0.4, options=2), REPLACE, 7),
    (RandomizedResponse(noise=0.8, options=5), REPLACE, 4),
    (DiscreteLaplace(decay=0.3, sensitivity=2), ADD, 1),
    (DiscreteLaplace(decay=0.5, sensitivity=1), REPLACE, 2),
    (TruncatedDiscreteGaussian(sigma=1.0, sensitivity=1, bound=2), ADD, 4),
    (TruncatedDiscreteGaussian(sigma=2.0, sensitivity=2, bound=7), ADD, 3),
    (TruncatedDiscreteGaussian(sigma=3.0, sensitivity=1, bound=10), REPLACE, 3),
]


@pytest.mark.parametrize(("event", "adjacency", "times"), LISTED)
def test_compositions_are_those_of_all_outcomes(
    event: Event, adjacency: Adjacency, times: int
) -> None:
    """ε is at least what the outcomes' chances give, close to it, and ε less its slack at most."""
    p, q = (product(law, times) for law in outputs(event, adjacency))
    many = Repeated(event=event, times=times)
    for at in (0.0, 0.4, 1.1):
        exact, found = exact_delta(p, q, at), delta(event=many, epsilon=at, adjacency=adjacency)
        assert exact * (1 - 1e-9) <= found.delta <= exact * 1.002 + 1e-12
        if 1e-6 < exact < 0.9:
            price = epsilon(event=many, delta=exact, adjacency=adjacency)
            assert at * (1 - 1e-9) <= price.epsilon <= at + 0.01
            assert price.epsilon - price.slack <= at + 1e-9
            if not isinstance(event, ApproximateDP | TruncatedDiscreteGaussian):
                assert price.slack < 0.05


@pytest.mark.parametrize(("event", "adjacency", "times"), LISTED)
def test_samples_are_those_of_all_outcomes(event: Event, adjacency: Adjacency, times: int) -> None:
    """A Poisson sample, unit removed or added: exact for removal, dominated for addition."""
    del times
    if adjacency is REPLACE:
        pytest.skip("a replaced unit's sample counts as seen")
    p, q = outputs(event, adjacency)
    mixed = 0.3 * p + 0.7 * q
    sampled = PoissonSampled(probability=0.3, event=event)
    for at in (0.0, 0.1):
        exact = exact_delta(mixed, q, at)
        found = delta(event=sampled, epsilon=at, adjacency=adjacency).delta
        assert exact * (1 - 1e-9) <= found <= exact * 1.01 + 1e-12


def flipped(scores: tuple[float, ...], scale: float) -> Law:
    """Permute-and-flip's choice, over all orders of the candidates."""
    chances = np.zeros(len(scores))
    heads = [math.exp(scale * (score - max(scores)) / 2) for score in scores]
    orders = list(itertools.permutations(range(len(scores))))
    for order in orders:
        left = 1.0
        for candidate in order:
            chances[candidate] += left * heads[candidate] / len(orders)
            left *= 1 - heads[candidate]
    return chances


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_no_choice_by_permute_and_flip_costs_more(width: float) -> None:
    """Over random scores of two to four candidates, each moved by at most Δ = 1."""
    draw = random.Random(5)
    event = PermuteAndFlip(epsilon=width)
    bounds = {at: delta(event=event, epsilon=at).delta for at in (0.0, width / 3, 0.9 * width)}
    for _ in range(150):
        one = tuple(draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(draw.randint(2, 4)))
        other = tuple(score + draw.choice([-1.0, 0.0, 1.0]) for score in one)
        for at, bound in bounds.items():
            exact = exact_delta(flipped(one, width), flipped(other, width), at)
            assert exact <= bound * (1 + 1e-12) + 1e-15


def test_permute_and_flip_from_below_is_a_real_choice() -> None:
    """The lower bound is what two candidates cost when a lead of Δ is turned round."""
    p, q = flipped((1.0, 0.0), 1.0), flipped((0.0, 1.0), 1.0)
    price = epsilon(event=PermuteAndFlip(epsilon=1.0), delta=exact_delta(p, q, 0.5))
    low = price.epsilon - price.slack
    assert 0.48 < low <= 0.5 + 1e-9
    assert price.epsilon <= 1.0


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("options", [2, 4])
def test_randomised_response_is_dp_accountings(noise: float, options: int) -> None:
    """Against its privacy loss distribution under replace-one; a count it would leave out."""
    many = Repeated(event=RandomizedResponse(noise=noise, options=options), times=3)
    accountant = dp_accounting.pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    for _ in range(3):
        accountant.compose(dp_accounting.RandomizedResponseDpEvent(noise, options))
    theirs = accountant.get_epsilon(1e-3)
    assert epsilon(event=many, delta=1e-3, adjacency=REPLACE).epsilon == pytest.approx(
        theirs, rel=1e-3
    )


@pytest.mark.parametrize("event", NEW)
def test_rdp_is_a_second_opinion_from_above(event: Event) -> None:
    """Looser than the privacy loss distribution, and refused where δ makes it infinite."""
    many = Repeated(event=event, times=20)
    if isinstance(event, TruncatedDiscreteGaussian):
        assert event_rdp_epsilon(event=many, adjacency=REPLACE, delta=0.1) == math.inf
        return
    if isinstance(event, ApproximateDP):
        with pytest.raises(ValueError, match="no Rényi bound is known"):
            epsilon(event=many, delta=1e-5, adjacency=REPLACE, method="rdp")
        many = Repeated(event=ApproximateDP(epsilon=0.5, delta=0), times=20)
    tight = epsilon(event=many, delta=1e-5, adjacency=REPLACE)
    loose = epsilon(event=many, delta=1e-5, adjacency=REPLACE, method="rdp")
    assert tight.epsilon <= 1.001 * loose.epsilon <= 1.3 * tight.epsilon


def test_a_bare_claim_is_kept_alone_and_beside_others() -> None:
    """(ε, δ) costs ε at δ, more below it, and δ is δ beyond ε; a Gaussian beside it adds."""
    once = ApproximateDP(epsilon=1.0, delta=1e-6)
    assert epsilon(event=once, delta=1e-6).epsilon == 1.0
    assert epsilon(event=once, delta=0.9e-6).epsilon == math.inf
    assert delta(event=once, epsilon=1.5).delta == 1e-6
    assert delta(event=once, epsilon=1.0).delta == 1e-6
    both = epsilon(event=Composed(events=(once, Gaussian(noise_multiplier=5.0))), delta=1e-5)
    assert (
        1.0 < both.epsilon < 1.0 + epsilon(event=Gaussian(noise_multiplier=5.0), delta=9e-6).epsilon
    )


@pytest.mark.parametrize(("sensitivity", "bound"), [(1, 4), (3, 6), (5, 2), (4, 2), (1, 60)])
def test_noise_that_ends_gives_some_units_away(sensitivity: int, bound: int) -> None:
    """δ never falls below the chance of what one side alone can put out, however large ε."""
    event = TruncatedDiscreteGaussian(sigma=2.0, sensitivity=sensitivity, bound=bound)
    p, q = outputs(event, ADD)
    alone = float(p[q == 0].sum())
    for at in (1.0, 50.0, 1e6):
        assert delta(event=event, epsilon=at).delta >= max(alone * (1 - 1e-9), 1e-300)
    if alone < 1 - 1e-9:
        largest = float(np.log(p[(p > 0) & (q > 0)] / q[(p > 0) & (q > 0)]).max())
        assert delta(event=event, epsilon=largest).delta <= max(alone * (1 + 1e-6), 1e-15)
    if 1e-300 < alone < 0.9:
        assert epsilon(event=event, delta=alone * 0.999).epsilon == math.inf
        assert epsilon(event=event, delta=min(alone * 1.001, 0.999)).epsilon < math.inf
        assert alone < delta(event=Repeated(event=event, times=3), epsilon=1e3).delta


def test_a_wide_cut_costs_what_none_does() -> None:
    """From twenty σ on, ε of the noise that is never cut, alone and in a sample."""
    cut = TruncatedDiscreteGaussian(sigma=3.0, sensitivity=2, bound=60)
    whole = DiscreteGaussian(sigma=3.0, sensitivity=2)
    for found, plain in ((cut, whole), (sampled(cut), sampled(whole))):
        ours = epsilon(event=Repeated(event=found, times=5), delta=1e-6).epsilon
        known = epsilon(event=Repeated(event=plain, times=5), delta=1e-6).epsilon
        assert ours == pytest.approx(known, rel=1e-4)


def sampled(event: Event) -> Event:
    return PoissonSampled(probability=0.1, event=event)


def test_a_cut_too_wide_to_list_is_refused_with_the_remedy() -> None:
    """A table of every outcome is not made for a million of them; hardly any noise says nothing."""
    wide = TruncatedDiscreteGaussian(sigma=3.0, sensitivity=2, bound=10**6)
    with pytest.raises(ValueError, match="coarser granularity"):
        epsilon(event=wide, delta=1e-6)
    bare = TruncatedDiscreteGaussian(sigma=1e-200, sensitivity=2, bound=10)
    assert epsilon(event=bare, delta=1e-6).epsilon == math.inf


@pytest.mark.parametrize("claim", [(0.0, 0.0), (0.0, 0.01), (1e-300, 0.01), (1e9, 0.01), (1, 1)])
def test_claims_at_the_ends_are_kept(claim: tuple[float, float]) -> None:
    """Nothing lost, only δ, hardly any ε, any amount of it, everything."""
    once = ApproximateDP(epsilon=claim[0], delta=claim[1])
    assert delta(event=once, epsilon=claim[0]).delta == claim[1]
    expected = claim[0] if claim[1] < 1 else math.inf
    assert epsilon(event=once, delta=0.5).epsilon <= expected
    assert (epsilon(event=once, delta=0.5).epsilon == math.inf) == (claim[1] == 1)


def test_an_answer_is_not_priced_where_its_unit_may_be_missing() -> None:
    """Add-or-remove adjacency has no meaning for one unit's own answer, at any depth."""
    once = RandomizedResponse(noise=0.4, options=3)
    for event in (once, Repeated(event=once, times=2), PoissonSampled(probability=0.1, event=once)):
        with pytest.raises(ValueError, match=r"pass adjacency=Adjacency.REPLACE_ONE"):
            epsilon(event=event, delta=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ApproximateDP(epsilon=-1, delta=0), "epsilon=-1.0"),
        (lambda: ApproximateDP(epsilon=math.inf, delta=0), "epsilon=inf"),
        (lambda: ApproximateDP(epsilon=1, delta=1.5), "delta=1.5"),
        (lambda: ApproximateDP(epsilon=1, delta=math.nan), "delta=nan"),
        (lambda: RandomizedResponse(noise=0, options=2), "nothing protects"),
        (lambda: RandomizedResponse(noise=0.5, options=1), "options=1"),
        (lambda: DiscreteLaplace(decay=0, sensitivity=1), "decay=0.0"),
        (lambda: DiscreteLaplace(decay=1, sensitivity=0), "sensitivity=0"),
        (lambda: PermuteAndFlip(epsilon=0), "epsilon=0.0"),
        (lambda: TruncatedDiscreteGaussian(sigma=0, sensitivity=1, bound=2), "sigma=0.0"),
        (lambda: TruncatedDiscreteGaussian(sigma=1, sensitivity=0, bound=2), "sensitivity=0"),
        (lambda: TruncatedDiscreteGaussian(sigma=1, sensitivity=1, bound=0), "bound=0"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message: str) -> None:
    """One line with the culprit."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("event", NEW)
def test_documents_and_words(event: Event) -> None:
    """Each goes through JSON unchanged, and has words of its own."""
    assert event_from_json(document=event_to_json(event=event)) == event
    assert "private" in described(event=NEW[0])
    assert len({described(event=one) for one in NEW}) == len(NEW)
