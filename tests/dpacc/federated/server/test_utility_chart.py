"""The picture of a federation shows every client, and no ε smaller than it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from dpacc_accounting import price_federation, read_federation
from matplotlib.axes import Axes

from dpacc.federated.server.history import ClientBooks, History, RoundReport
from dpacc.federated.server.utility_chart import ClientUtility, draw_utility, utilities_of

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


def test_equal_figures_are_both_seen_with_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and federated stand side by side, each with a bar of one standard error."""
    drawn: dict[str, Any] = {}
    draw = Axes.errorbar

    def remember(self: Axes, x: Any, y: Any, **named: Any) -> Any:
        drawn[named.get("label", "rounds")] = ([*x], [*y], [*named["yerr"]])
        return draw(self, x, y, **named)

    monkeypatch.setattr(Axes, "errorbar", remember)
    history = History(start_quality={"a": 0.5, "b": 0.5})
    books = ClientBooks(
        epsilon=1.0, delta=1e-5, epsilon_budget=2.0, noise_multiplier=1.0,
        sampling_probability=0.1, steps_charged=1, steps_taken=1,
    )  # fmt: skip
    history.rounds.append(
        RoundReport(
            number=1,
            asked=("one",),
            survivors=("one",),
            failed={},
            filtered={},
            books={"one": books},
            quality={"a": 0.7, "b": 0.7},
        )
    )
    errors = dict.fromkeys(("a", "b"), 0.03)
    clients = utilities_of(
        history,
        alone={"one": {"a": 0.7, "b": 0.6}},
        together={"a": 0.7, "b": 0.7},
        kinds={"one": "a"},
        errors=lambda _: errors,
    )
    draw_utility(
        history=history,
        guarantee=history.guarantee(),
        clients=clients,
        pooled={"a": 0.7, "b": 0.7},
        errors=lambda _: errors,
    )
    (alone, same, bar), (federated, shared, other) = drawn["alone"], drawn["federated"]
    assert same == shared == [70.0]
    assert bar == other == [3.0]
    assert federated[0] - alone[0] > 0.2
    assert drawn["rounds"][2] == pytest.approx([3 / math.sqrt(2)] * 2)
