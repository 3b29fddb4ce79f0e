"""One client that breaks a sum is named, and costs the others one round at most."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dpacc.federated.secure_sum.fixed_point import Integers
from dpacc.federated.secure_sum.keys import new_key
from dpacc.federated.secure_sum.masking import SECAGG, committed
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Party, Payload, Request
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.server.history import History
from tests.dpacc.federated.secure_sum.sums import Federation, updates
from tests.dpacc.federated.secure_sum.test_secagg import FIVE, exact_mean

Twist = Callable[[Payload, Party], Payload]


def federation_with(stage: str, twist: Twist, settings: SecureSum = FIVE) -> Federation:
    """Five clients, of which the first twists what it answers in one stage."""
    federation = Federation(updates(5), settings)
    honest = SECAGG.queries[stage]

    def twisted(asked: Request, party: Party) -> Payload:
        return twist(honest(asked, party), party)

    queries = {**SECAGG.queries, stage: twisted}
    federation.clients[0]._side = replace(SECAGG, queries=queries)
    return federation


def given(federation: Federation) -> list[np.ndarray]:
    """By how much each client moves the adapter."""
    return [each.moved for each in federation.fixed]


def key(name: str, value: bytes) -> Twist:
    """Another key than its own."""
    return lambda told, party: told | {name: value}


def same_key(told: Payload, party: Party) -> Payload:
    """One key for both purposes."""
    return told | {"seal-key": told["mask-key"]}


def few_shares(told: Payload, party: Party) -> Payload:
    """Nothing for one of the others."""
    return told | {"nodes": told["nodes"][1:], "sealed": told["sealed"][1:]}


def short_boxes(told: Payload, party: Party) -> Payload:
    """Boxes in which no share can lie."""
    return told | {"sealed": [b"!" for _ in told["sealed"]]}


@pytest.mark.parametrize(
    ("stage", "twist"),
    [
        (KEYS, key("mask-key", bytes(32))),
        (KEYS, key("mask-key", b"short")),
        (KEYS, key("seal-key", bytes(32))),
        (KEYS, same_key),
        (SHARES, few_shares),
        (SHARES, short_boxes),
        (SHARES, lambda told, party: told | {"commitments": []}),
        (SHARES, lambda told, party: told | {"seed-digest": 7}),
    ],
)
def test_who_offers_no_keys_or_shares_is_left_out_before_anybody_trains(
    stage: str, twist: Twist
) -> None:
    """The other four's mean is exact; the culprit trains nothing, is named, and asked no more."""
    federation = federation_with(stage, twist)
    report = federation.round()
    assert np.array_equal(
        federation.moved, exact_mean([each.moved for each in federation.fixed][1:])
    )
    assert report.survivors == ("site-2", "site-3", "site-4", "site-5")
    assert report.failed.keys() == {"node 1"}
    assert report.failed["node 1"] == federation.history.expelled[1]
    assert [each.asked for each in federation.fixed] == [0, 1, 1, 1, 1]
    assert federation.round().asked == report.survivors


def other_commitments(told: Payload, party: Party) -> Payload:
    """Commitments to what it did not deal."""
    return told | {"commitments": told["commitments"][::-1]}


def test_shares_that_were_not_committed_to_stop_the_round_before_it_costs_anything() -> None:
    """All others refuse to train, and say of whom; the next round is theirs alone."""
    federation = federation_with(SHARES, other_commitments)
    # In the middle of the list both orders agree: that client has nothing to complain of.
    assert not federation.round().survivors
    assert federation.history.expelled.keys() == {1}
    assert sum(each.asked for each in federation.fixed[1:]) <= 1
    report = federation.round()
    assert report.survivors == ("site-2", "site-3", "site-4", "site-5")


def test_as_many_as_may_collude_get_nobody_expelled() -> None:
    """One complaint, where one may lie: the accuser is out of the round, and the accused is not."""
    settings = SecureSum(clients=5, threshold=4, colluding=1)
    federation = federation_with(SHARES, lambda told, party: told, settings)

    def accuse(asked: Request, party: Party) -> None:
        spoiled = dict(asked)
        spoiled["commitments"] = [bytes(64), *list(asked["commitments"])[1:]]  # type: ignore[call-overload]
        SECAGG.require(spoiled, party)

    federation.clients[0]._side = replace(SECAGG, require=accuse)
    report = federation.round()
    assert "wrong share of client 2" in report.failed["node 1"]
    assert report.survivors == ("site-2", "site-3", "site-4", "site-5")
    assert federation.history.expelled == {}


def shares_of_another(told: Payload, party: Party) -> Payload:
    """A seed that it says, and shares of another: nobody can notice before they are needed."""
    party.state["seed"] = new_key()
    return told | {"seed-digest": hashlib.sha256(party.state["seed"]).digest()}  # type: ignore[arg-type]


def test_shares_of_another_secret_cost_one_round_and_are_blamed_on_their_dealer() -> None:
    """No other client is at fault, and each is told who was; the next sum opens without it."""
    federation = federation_with(SHARES, shares_of_another)
    report = federation.round()
    assert report.survivors == ()
    assert not federation.moved.any()
    assert report.failed["site-1"].startswith("it dealt shares of a secret")
    assert all("client 1 dealt" in report.failed[f"site-{n}"] for n in (2, 3, 4, 5))
    federation.round()
    assert np.array_equal(
        federation.moved, exact_mean([each.moved for each in federation.fixed][1:])
    )
    kept = History.from_json(federation.history.to_json())
    assert kept.expelled == federation.history.expelled


def test_wrong_shares_at_the_opening_are_put_aside() -> None:
    """They are not what was dealt: the sum opens with the others', exactly, and all are in it."""

    def wrong(told: Payload, party: Party) -> Payload:
        return told | {"shares": [bytes(67) + b"!" for _ in told["shares"]]}

    federation = federation_with(OPEN, wrong)
    report = federation.round()
    assert np.array_equal(federation.moved, exact_mean(given(federation)))
    assert len(report.survivors) == 5
    assert "not those that were dealt" in federation.history.expelled[1]


def test_a_dealer_whose_bad_shares_were_committed_to_does_not_stop_the_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of five shares two are of nothing: some three combine to the seed that was said."""
    import dpacc.federated.secure_sum.masking as masking

    honest = masking.shares

    def two_of_nothing(secret: bytes, **how: Any) -> list[bytes]:
        dealt = honest(secret, **how)
        return [dealt[0][:2] + bytes(66), dealt[1][:2] + bytes(66), *dealt[2:]]

    monkeypatch.setattr(masking, "shares", two_of_nothing)
    federation = Federation(updates(5), FIVE)
    assert len(federation.round().survivors) == 5
    assert np.array_equal(federation.moved, exact_mean(given(federation)))


def test_numbers_that_are_no_update_move_nothing() -> None:
    """A sum beyond what all updates can reach is dropped; it cannot tell whose fault it was."""
    federation = Federation(updates(5), FIVE)

    def garbage(whole: Integers, asked: Request, party: Party) -> Any:
        random = np.random.default_rng(0).integers(-(2**31), 2**31, whole.shape)
        return SECAGG.protect(random, asked, party)

    federation.clients[0]._side = replace(SECAGG, protect=garbage)
    report = federation.round()
    assert not federation.moved.any()
    assert all("cannot tell whose" in why for why in report.failed.values())
    assert federation.history.expelled == {}


def test_a_commitment_is_to_one_share_of_one_dealer() -> None:
    """Another session, source, destination or half gives other digests, and no share is seen."""
    box = bytes(range(136))
    one = committed(box, session="s", source="1", destination="2")
    others = [
        committed(box, session="t", source="1", destination="2"),
        committed(box, session="s", source="2", destination="1"),
        committed(box[68:] + box[:68], session="s", source="1", destination="2"),
    ]
    assert len({one, *others}) == 4
    assert one[:32] != one[32:]
    assert all(box[at : at + 8] not in one for at in range(0, 128, 8))


def test_one_node_too_many_is_left_out_and_stops_nobody() -> None:
    """A sum of five, and six connected: who took part before goes first, and the sixth is told."""
    federation = Federation(updates(6), FIVE)
    report = federation.round()
    assert len(report.survivors) == 5
    assert report.failed == {"node 6": "not asked: this sum is for 5 clients"}
    federation.history.expelled[2] = "for a test"
    assert federation.round().survivors == ("site-1", "site-3", "site-4", "site-5", "site-6")
