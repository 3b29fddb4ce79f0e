"""Whole federations of a tiny model, whose server sees sums alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.secure_sum.fixed_point import FixedPoint
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.updates.layout import flat, trainable_arrays
from tests.dpacc.federated.federations import (
    client,
    die_in_the_second_round,
    server,
    trusting,
)

THREE = SecureSum(clients=3, threshold=2)
PRIVACY = ClientPrivacy(noise_multiplier=2.0, clipping_norm=0.5, delta=1e-3)


def secure(folder: Path, number: int, settings: SecureSum = THREE, **changes: Any) -> SecureClient:
    """A client whose updates are private already, and hidden besides."""
    return SecureClient(client=client(folder, number, **changes), secure_sum=settings)


def sharing(folder: Path, number: int, **changes: Any) -> SecureClient:
    """A client that adds its share of the noise."""
    known: dict[str, Any] = {"secure_sum": THREE, "privacy": PRIVACY, "most_rounds": 9}
    return SecureClient(client=trusting(folder, number), **known | changes)


def weights(federation: Any) -> np.ndarray:
    return flat(trainable_arrays(federation.model))


@pytest.mark.parametrize("protocol", ["secagg", "pairwise", "ckks"])
def test_a_secure_federation_is_the_plain_one(folder: Path, protocol: ProtocolName) -> None:
    """Same seeds, one round: the same adapter as by the plain mean, to the grid's precision."""
    if protocol == "ckks":
        pytest.importorskip("tenseal")
    plain = server(folder, num_clients=3, rounds=1, folder=folder / "plain-server")
    plain.train(clients=[client(folder, n, folder=folder / f"plain-{n}") for n in (1, 2, 3)])
    settings = SecureSum(clients=3, protocol=protocol)
    hidden = server(folder, num_clients=3, rounds=1, secure_sum=settings)
    history = hidden.train(clients=[secure(folder, n, settings) for n in (1, 2, 3)])
    assert np.abs(weights(plain)).max() > 0
    spacing = FixedPoint.fitting(clients=3, reach=8.0).spacing
    assert np.abs(weights(plain) - weights(hidden)).max() <= spacing / 2 + 1e-9
    assert sorted(history.epsilons()) == ["site-1", "site-2", "site-3"]
    assert history.guarantee().worst_server.server.void_because == ("fixed-seed",)


def test_a_client_of_its_own_rank_is_summed_at_the_shared_one(folder: Path) -> None:
    """Its columns of B are where the plain mean has them, and what crosses is as wide as all."""
    ranks = {1: None, 2: 1, 3: None}
    plain = server(folder, num_clients=3, rounds=1, folder=folder / "plain-server")
    plain.train(
        clients=[client(folder, n, rank=r, folder=folder / f"plain-{n}") for n, r in ranks.items()]
    )
    hidden = server(folder, num_clients=3, rounds=1, secure_sum=THREE)
    history = hidden.train(clients=[secure(folder, n, rank=r) for n, r in ranks.items()])
    spacing = FixedPoint.fitting(clients=3, reach=8.0).spacing
    assert np.abs(weights(plain) - weights(hidden)).max() <= spacing / 2 + 1e-9
    (report,) = history.rounds
    assert report.bytes_received > 3 * 4 * weights(hidden).size
    assert report.bytes_sent > 3 * 4 * weights(hidden).size


def test_clients_share_the_noise_of_a_federation(folder: Path) -> None:
    """Two rounds, three ledgers and the server's: one ε that holds against the server as well."""
    settings: dict[str, Any] = {"num_clients": 3, "privacy_budget": None, "rounds": 2}
    federation = server(folder, secure_sum=THREE, client_privacy=PRIVACY, **settings)
    before = weights(federation)
    clients = [sharing(folder, n) for n in (1, 2, 3)]
    history = federation.train(clients=clients)
    assert not np.array_equal(before, weights(federation))
    assert all(report.survivors == ("site-1", "site-2", "site-3") for report in history.rounds)
    assert history.federation()["schedule"] == [{"rounds": 2, "survivors": 3}]
    went = history.guarantee().prices[-1]
    assert 0 < went.server.epsilon == went.released.epsilon < 3
    for name in ("server", "site-1", "site-2", "site-3"):
        assert len(read_ledger(path=folder / name / "ledger.jsonl").releases) == 2


def test_a_server_that_died_goes_on(folder: Path) -> None:
    """After its second sum, before it was kept: charged, run again, and charged again."""
    settings: dict[str, Any] = {"num_clients": 3, "privacy_budget": None, "rounds": 2}
    clients = [sharing(folder, n) for n in (1, 2, 3)]
    dying = server(folder, secure_sum=THREE, client_privacy=PRIVACY, **settings)
    die_in_the_second_round(dying, clients)
    again = server(folder, secure_sum=THREE, client_privacy=PRIVACY, **settings)
    history = again.train(clients=clients)
    assert len(history.rounds) == 2
    assert history.federation()["schedule"] == [{"rounds": 3, "survivors": 3}]
    other = server(folder, secure_sum=None, client_privacy=PRIVACY, **settings)
    with pytest.raises(ConfigurationError, match="other settings"):
        other.train(clients=clients)


def test_kinds_of_clients_do_not_mix(folder: Path) -> None:
    """Plain clients, and those without their share of the noise, are refused before they train."""
    settings: dict[str, Any] = {"num_clients": 3, "rounds": 1}
    federation = server(
        folder, secure_sum=THREE, client_privacy=PRIVACY, privacy_budget=None, **settings
    )
    without = sharing(folder, 2, privacy=None, most_rounds=None)
    history = federation.train(clients=[sharing(folder, 1), without, client(folder, 3)])
    (report,) = history.rounds
    assert report.survivors == ()
    assert "differs from this client's" in report.failed["node 2"]
    assert set(report.failed) == {"node 1", "node 2", "node 3"}
    assert not (folder / "site-1" / "ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"defence": Defence(rule="none")}, "look at single updates"),
        ({"aggregation": "fedex"}, "aggregation='fedex'"),
        ({"client_sampling_rate": 0.5}, "no amplification by sampling covers"),
    ],
)
def test_contradictions_are_refused_at_configuration(
    folder: Path, settings: dict[str, Any], reason: str
) -> None:
    """A defence, a rule of products, and sampled clients under shared noise."""
    federation = server(
        folder, num_clients=3, secure_sum=THREE, client_privacy=PRIVACY, privacy_budget=None
    )
    with pytest.raises(ConfigurationError, match=reason):
        federation.train(clients=[sharing(folder, n) for n in (1, 2, 3)], **settings)
