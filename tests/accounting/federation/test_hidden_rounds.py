"""Rényi bounds on hidden rounds are exact at each order, and never below the composed mixture."""

import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency, epsilon, price_federation, read_federation
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.federation import guarantees as room
from dpacc_accounting.federation.hidden_rounds import _ORDERS, _steps, hidden_epsilons
from dpacc_accounting.federation.rounds import LocalRounds
from dpacc_accounting.renyi.sampled_gaussian import renyi_divergence


def _part(**changes: float) -> LocalRounds:
    fields = {
        "rounds": 50,
        "local_steps": 10,
        "sampling_probability": 0.05,
        "noise_multiplier": 1.0,
        "participation": 0.1,
    }
    return LocalRounds(**fields | changes)


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_steps_have_their_own_divergences(adjacency: Adjacency) -> None:
    """All steps at once have the divergences that each has alone, q = 0 and q = 1 included."""
    kinds = [(0.0, 1.0), (1e-4, 0.7), (0.05, 1.0), (0.9, 3.0), (1.0, 2.0)]
    parts = [_part(sampling_probability=q, noise_multiplier=s) for q, s in kinds]
    found = _steps(parts, adjacency)
    for q, sigma in kinds[1:]:
        alone = [
            renyi_divergence(release=Release(q, sigma), adjacency=adjacency, order=order)
            for order in _ORDERS
        ]
        np.testing.assert_allclose(found[q, sigma], alone, rtol=1e-9)
    assert not found[0.0, 1.0].any()


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("chance", [0.01, 0.3, 1.0])
def test_bounds_cover_the_composed_mixture(adjacency: Adjacency, chance: float) -> None:
    """The bound is above the certified ε of the same rounds, and within a half of it."""
    parts = [_part(participation=chance), _part(rounds=5, noise_multiplier=2.0)]
    (bound,) = hidden_epsilons(schedules=[parts], delta=1e-6, adjacency=adjacency)
    from dpacc_accounting import Composed

    event = Composed(events=tuple(part.as_hidden for part in parts))
    exact = epsilon(event=event, delta=1e-6, adjacency=adjacency)
    assert exact.epsilon - exact.slack <= bound.epsilon <= 1.6 * exact.epsilon
    assert (bound.method, bound.slack) == ("rdp", bound.epsilon)


def test_more_of_anything_costs_more() -> None:
    """ε grows with the chance, the rounds and the local steps."""
    schedules = [
        [_part()],
        [_part(participation=0.2)],
        [_part(rounds=100)],
        [_part(local_steps=20)],
        [_part(), _part()],
    ]
    least, *others = hidden_epsilons(
        schedules=schedules, delta=1e-6, adjacency=Adjacency.ADD_OR_REMOVE
    )
    assert all(each.epsilon > least.epsilon for each in others)


def test_of_many_hidden_clients_only_the_dearest_are_composed() -> None:
    """Beyond a few different schedules the cheap ones are bounded; all stay below the server's."""
    clients = [
        {"name": f"c{k}", "rounds": 20, "local_steps": 5, "sampling_probability": 0.02,
         "noise_multiplier": 1 + k / 15, "participation": 0.3}
        for k in range(30)
    ]  # fmt: skip
    document = {"level": "example", "delta": 1e-6, "clients": clients}
    found = price_federation(federation=read_federation(document=document))
    composed = [price for price in found.prices if price.released.method == "pld"]
    assert len(clients) > room._FEW_SHARED_COINS
    assert found.prices[0] in composed
    assert 1 <= len(composed) < len(clients)
    assert found.worst_released is found.prices[0]
    assert all(p.released.epsilon <= p.server.epsilon < math.inf for p in found.prices)
