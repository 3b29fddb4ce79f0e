"""Thousands of different clients are priced at once, never below the exact ε and close to it."""

import random
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Composed,
    Gaussian,
    PoissonSampled,
    Repeated,
    epsilon,
    price_federation,
    read_federation,
)
from dpacc_accounting.events.flattening import Release, releases
from dpacc_accounting.federation import many_clients as room
from dpacc_accounting.federation.batched_bounds import batched_epsilons
from dpacc_accounting.federation.many_clients import epsilons

from tests.accounting.work import counted_work


def _steps(q: float, sigma: float, times: int) -> Repeated:
    step = PoissonSampled(probability=q, event=Gaussian(noise_multiplier=sigma))
    return Repeated(event=step, times=times)


def _random_law(draw: random.Random) -> dict[Release, int]:
    return {
        Release(10 ** draw.uniform(-4, -0.05), 10 ** draw.uniform(-0.3, 0.8)): int(
            10 ** draw.uniform(0, 3.7)
        )
        for _ in range(draw.choice([1, 1, 2, 3]))
    }


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-10])
def test_bounds_hold_and_are_close(delta: float) -> None:
    """The bound is at least the certified lower bound, and 3% above the upper one at the most.

    Where ε is below 0.05, where few rare events decide, it may lie further above.
    """
    draw = random.Random(int(-np.log10(delta)))
    laws = [_random_law(draw) for _ in range(60)]
    bounds = batched_epsilons(laws=laws, delta=delta)
    compared = 0
    for law, bound in zip(laws, bounds, strict=True):
        event = Composed(events=tuple(_steps(r.probability, r.noise_multiplier, n) for r, n in law.items()))  # fmt: skip # noqa: E501
        exact = epsilon(event=event, delta=delta)
        assert not bound < exact.epsilon - exact.slack
        if exact.epsilon > 0.05 and not np.isnan(bound):
            compared += 1
            assert bound <= 1.03 * exact.epsilon
    assert compared >= 20


def test_the_usual_excess_is_half_a_percent() -> None:
    """Over common settings the median bound is within 0.6% of the certified one."""
    draw = random.Random(5)
    sizes = [(10 ** draw.uniform(-3, -1.3), draw.uniform(0.6, 2), draw.randint(50, 3000)) for _ in range(40)]  # fmt: skip # noqa: E501
    events = [_steps(*size) for size in sizes]
    bounds = batched_epsilons(laws=[releases(event=event) for event in events], delta=1e-6)
    exact = [epsilon(event=event, delta=1e-6).epsilon for event in events]
    assert np.nanmedian(bounds / exact) < 1.006


def test_a_client_s_bound_does_not_depend_on_its_company() -> None:
    """A client alone, and one among others that need larger arrays, have the same bound."""
    laws = [{Release(0.003, 1.95): 547}, {Release(0.3, 0.7): 4000}, {Release(0.01, 0.6): 3}]
    together = batched_epsilons(laws=laws, delta=1e-5)
    alone = [batched_epsilons(laws=[law], delta=1e-5)[0] for law in laws]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_few_events_are_priced_as_alone() -> None:
    """Up to a hundred different events get the guarantees that `epsilon` gives."""
    events = [_steps(0.01, 1 + k / 10, 50) for k in range(5)] * 3
    found = epsilons(events=events, delta=1e-5, unit="patient")
    assert found == [epsilon(event=event, delta=1e-5, unit="patient") for event in events]


def test_of_many_the_dearest_are_certified_on_both_sides() -> None:
    """The maximum over a federation is never a coarse bound; the others say they have no lower."""
    events = [_steps(0.01, 1 + k / 5000, 50) for k in range(150)]
    found = epsilons(events=events, delta=1e-5)
    worst = max(found, key=lambda guarantee: guarantee.epsilon)
    assert worst == epsilon(event=events[0], delta=1e-5)
    coarse = [g for g in found if g.slack == g.epsilon]
    assert 100 < len(coarse) < 149
    for guarantee, event in zip(found, events, strict=True):
        exact = epsilon(event=event, delta=1e-5)
        assert exact.epsilon - exact.slack <= guarantee.epsilon <= 1.01 * exact.epsilon


def test_what_a_batch_cannot_hold_is_priced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise, no sampling, no steps and replace-one adjacency come out as `epsilon` has them."""
    monkeypatch.setattr(room, "_FEW", 1)
    odd = [
        _steps(0.5, 0.0, 3),
        Repeated(event=Gaussian(noise_multiplier=2.0), times=7),
        Composed(events=()),
    ]
    for adjacency in Adjacency:
        found = epsilons(events=odd, delta=1e-5, adjacency=adjacency)
        alone = [epsilon(event=event, delta=1e-5, adjacency=adjacency) for event in odd]
        assert found == alone


def _federation(clients: int) -> dict[str, Any]:
    draw = random.Random(3)
    return {
        "level": "example",
        "delta": 1e-6,
        "clients": [
            {
                "name": f"client {k}",
                "dataset_size": draw.randint(500, 50_000),
                "batch_size": draw.choice([16, 32, 64, 128]),
                "rounds": draw.randint(1, 1000),
                "noise_multiplier": draw.uniform(0.6, 2.0),
            }
            for k in range(clients)
        ],
    }


def test_ten_thousand_clients_take_seconds() -> None:
    """All-different clients over up to 1,000 rounds transform under 20,000 numbers each."""
    federation = read_federation(document=_federation(2000))
    with counted_work() as work:
        found = price_federation(federation=federation)
    assert 2000 < work.points < 2000 * 20_000
    assert len({price.server.epsilon for price in found.prices}) > 1900


def test_hidden_coins_cost_no_more_than_seconds() -> None:
    """A thousand different clients behind coins of their own transform some 25,000 numbers each.

    Rare joins make losses that are rare and large; a coarser grid bounds them, still from above.
    """
    document = _federation(1000)
    for k, client in enumerate(document["clients"]):
        client["participation"] = 0.05 + 0.45 * k / 1000
    federation = read_federation(document=document)
    with counted_work() as work:
        found = price_federation(federation=federation)
    assert 1000 < work.points < 1000 * 50_000
    parts = {client.name: client.schedule[0] for client in federation.clients}
    rarest = [price for price in found.prices if parts[price.name].participation < 0.06]
    for price in rarest[::4]:
        exact = epsilon(event=parts[price.name].as_hidden, delta=federation.delta).epsilon
        assert exact * (1 - 1e-3) <= price.released.epsilon <= exact * 1.1


def test_equal_clients_share_the_work() -> None:
    """Ten thousand clients of ten kinds take the work of ten."""
    clients = [
        {"name": f"c{k}", "rounds": 1000, "sampling_probability": 0.01,
         "noise_multiplier": 1 + k % 10 / 10}
        for k in range(10_000)
    ]  # fmt: skip
    document = {"level": "example", "delta": 1e-6, "clients": clients}
    with counted_work() as work:
        found = price_federation(federation=read_federation(document=document))
    assert 10 < work.points < 10 * 200_000
    assert len({price.server.epsilon for price in found.prices}) == 10
