"""Client-level privacy: what it refuses, and that no client without noise is taken for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.robust import Defence
from tests.dpacc.federated.federations import (
    BUDGET,
    DELTA,
    client,
    deployed_in_process,
    server,
    trusting,
)


def privacy(**changes: float) -> ClientPrivacy:
    settings: dict[str, Any] = {"noise_multiplier": 1.0, "clipping_norm": 0.5, "delta": DELTA}
    return ClientPrivacy(**settings | changes)


def test_the_two_modes_are_never_mixed(folder: Path) -> None:
    """Clients with noise of their own and those that trust the server refuse each other's kind."""
    with pytest.raises(ConfigurationError, match="never mixed"):
        server(folder, client_privacy=privacy())
    with pytest.raises(ConfigurationError, match="never mixed"):
        server(folder, privacy_budget=None)
    example = server(folder, rounds=1, privacy_budget=BUDGET, folder=folder / "example").train(
        clients=[client(folder, 1), trusting(folder, 2)]
    )
    assert example.rounds[0].survivors == ("site-1",)
    assert "hold no noise" in next(iter(example.rounds[0].failed.values()))
    central = server(
        folder, rounds=1, privacy_budget=None, client_privacy=privacy(), folder=folder / "central"
    ).train(clients=[client(folder, 3), trusting(folder, 2)])
    assert central.rounds[0].survivors == ("site-2",)
    assert "adds its own noise" in next(iter(central.rounds[0].failed.values()))


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"defence": Defence(rule="none")}, "leave the defence out"),
        ({"aggregation": "fedex"}, "aggregation='ffa'|frozen|exact as it"),
    ],
)
def test_what_central_noise_cannot_be_priced_with_is_refused(
    folder: Path, settings: dict[str, Any], remedy: str
) -> None:
    """Krum and its like, and rules that are no sum of clipped updates."""
    federation = server(folder, privacy_budget=None, client_privacy=privacy())
    with pytest.raises(ConfigurationError, match=remedy):
        federation.train(clients=[trusting(folder, 1), trusting(folder, 2)], **settings)


def test_a_trusting_client_trains_no_longer_than_its_owner_allows(folder: Path) -> None:
    """However trusted, a server that asks for more passes is refused before any record is read."""
    federation = server(folder, rounds=1, privacy_budget=None, client_privacy=privacy())
    clients = [trusting(folder, n) for n in (1, 2)]
    history = deployed_in_process(federation.app(local_epochs=2.0), clients, federation)
    assert history.rounds[0].survivors == ()
    assert all("most_local_epochs is 1" in why for why in history.rounds[0].failed.values())
