"""The picture of a federation shows every client, and no ε smaller than it is."""

from __future__ import annotations

import pytest
from dpacc_accounting import price_federation, read_federation
from matplotlib.axes import Axes

from dpacc.federated.server.history import History, RoundReport
from dpacc.federated.server.utility_chart import ClientUtility, draw_utility

ROUNDS = {"rounds": 1, "sampling_probability": 0.1, "noise_multiplier": 1.0}


def test_every_client_is_drawn_with_an_epsilon_that_is_not_flattered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients stand in the order of ε, which is rounded up; the result is a PNG."""
    ticks: list[str] = []
    drawn = Axes.set_xticks

    def remember(self: Axes, places: object, labels: list[str] | None = None) -> object:
        ticks.extend(labels or [])
        return drawn(self, places, labels)

    monkeypatch.setattr(Axes, "set_xticks", remember)
    history = History(start_quality={"news": 0.5})
    history.rounds.append(
        RoundReport(
            number=1,
            asked=("a", "b"),
            survivors=("a", "b"),
            failed={},
            filtered={},
            books={},
            quality={"news": 0.7},
        )
    )
    clients = [
        ClientUtility(name="b", epsilon=7.9999, alone=0.6, federated=0.7),
        ClientUtility(name="a", epsilon=1.0401, alone=0.6, federated=0.7),
    ]
    document = {"level": "example", "delta": 1e-5, "clients": [ROUNDS | {"name": "a"}]}
    guarantee = price_federation(federation=read_federation(document=document))
    picture = draw_utility(
        history=history, guarantee=guarantee, clients=clients, pooled={"news": 0.75}
    )
    assert picture.startswith(b"\x89PNG")
    assert ticks == ["ε = 1.1\na", "ε = 8\nb"]
