"""Books that no honest client has: one client's break nobody else's price, nor the pricing."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from dpacc_accounting import (
    Composed,
    epsilon,
)
from dpacc_accounting.federation import guarantees, rounds
from dpacc_accounting.federation.fields import FieldError

from tests.accounting.federation.test_guarantees import (
    DELTA,
    NORTH,
    SOUTH,
    _examples,
    _steps,
)


def test_one_clients_absurd_books_leave_the_others_prices_as_they_are() -> None:
    """The corners of what a double or a count can say are priced, or void, in its own name."""
    alone = _examples(NORTH).prices[0]
    corners: list[dict[str, Any]] = [
        {"rounds": 10**15, "noise_multiplier": 1.0},
        {"rounds": 2**53, "local_steps": 2**53, "noise_multiplier": 1e-6},
        {"rounds": 10**9, "noise_multiplier": 1e-6, "sampling_probability": 1e-12},
        {"rounds": 1000, "noise_multiplier": 1e9},
        {"rounds": 1000, "noise_multiplier": 1e-300},
        {"rounds": 1000, "noise_multiplier": 0},
        {"rounds": 10**15, "noise_multiplier": 1.0, "local_steps": 3, "participation": 0.3},
        {"rounds": 3, "noise_multiplier": 1.0, "choices": [1e300]},
    ]
    for corner in corners:
        absurd = {"name": "absurd", "sampling_probability": 0.1} | corner
        found = _examples(NORTH, absurd)
        assert found.prices[0] == alone
        assert found.prices[1].server.epsilon >= 0
        assert found.prices[1].released.epsilon <= found.prices[1].server.epsilon
        json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "absurd", [{"rounds": -1}, {"rounds": 10**30}, {"noise_multiplier": -1}, {"local_steps": 0.5}]
)
def test_books_that_are_none_are_refused_by_the_clients_name(absurd: dict[str, Any]) -> None:
    """Negative or broken counts: whose they are is in the line, beside the field."""
    with pytest.raises(FieldError, match=r"^clients\[1\]\..*\(client 'south'\)$"):
        _examples(NORTH, SOUTH | absurd)


def test_a_client_of_very_many_kinds_of_rounds_is_priced_by_a_few_that_cost_no_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another noise in each round: no more laws are composed than that, and ε is not below its own;
    of its price no lower bound is stated, and the others' are as they were.
    """
    monkeypatch.setattr(rounds, "MOST_KINDS", 8)
    parts = [
        {"rounds": 1, "local_steps": 3, "noise_multiplier": 1 + (7 * at % 20) / 100}
        for at in range(20)
    ]
    many = {"name": "many", "sampling_probability": 0.02, "schedule": parts}
    found = _examples(NORTH, many, overlaps=[["north", "many"]])
    whole = Composed(events=tuple(_steps({**SOUTH, **part}) for part in parts))
    exact = epsilon(event=whole, delta=DELTA).epsilon
    price = found.prices[1].server
    assert exact <= price.epsilon <= 1.05 * exact
    assert price.slack == price.epsilon
    assert found.overlaps[0].server.slack == found.overlaps[0].server.epsilon
    assert found.prices[0] == _examples(NORTH).prices[0]
    assert any("many tells 20 kinds" in said for said in found.assumptions)
    twice = _examples(many | {"schedule": [*parts, *parts]})
    assert any("many tells 20 kinds" in said for said in twice.assumptions)
    hidden = [part | {"participation": 0.5} for part in parts]
    released = _examples(many | {"schedule": hidden}).prices[0].released
    assert released.epsilon == pytest.approx(price.epsilon)


def test_rounds_that_cannot_be_priced_have_no_price_and_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever fails inside, it is said of the client whose rounds they are, and of no other."""
    priced = guarantees.epsilons

    def failing(*, events: Any, **stated: Any) -> Any:
        if any(each == _steps(SOUTH) for each in events):
            raise ArithmeticError("no law has this mass")
        return priced(events=events, **stated)

    alone = _examples(NORTH)
    monkeypatch.setattr(guarantees, "epsilons", failing)
    others = [NORTH | {"name": f"north-{at}"} for at in range(3)]
    found = _examples(NORTH, SOUTH, *others)
    voided = found.prices[1]
    assert voided.server.epsilon == voided.released.epsilon == math.inf
    assert "no law has this mass" in voided.server.void_because[0]
    assert [each.server for each in found.prices if each is not voided] == 4 * [
        alone.prices[0].server
    ]
    assert [note.text for note in found.told] == [
        "south: its rounds cannot be priced: no law has this mass"
    ]
