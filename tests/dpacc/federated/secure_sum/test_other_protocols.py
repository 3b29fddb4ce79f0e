"""Pairwise masks and homomorphic sums, behind the same name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext

from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum.ciphertexts import homomorphic
from dpacc.federated.secure_sum.fixed_point import FixedPoint
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Party
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from tests.dpacc.federated.secure_sum.sums import STAGES, Federation, Fixed, updates

PAIRWISE = SecureSum(clients=4, protocol="pairwise")
CKKS = SecureSum(clients=4, threshold=3, protocol="ckks")


def exact_mean(given: list[np.ndarray]) -> np.ndarray:
    grid = FixedPoint.fitting(clients=4, reach=8.0)
    whole = sum(grid.rounded(each.astype(np.float64)) for each in given)
    return (whole * grid.spacing / len(given)).astype(np.float32)


def test_pairwise_masks_cancel_when_all_answer() -> None:
    """The mean of all, bit for bit, after two messages a client; each one's numbers are hidden."""
    given = updates(4)
    federation = Federation(given, PAIRWISE)
    federation.round()
    assert np.array_equal(federation.moved, exact_mean(given))
    assert {stage for stage, _, _ in federation.grid.seen} == {STAGES[0], "train"}
    for sent in federation.masked().values():
        assert np.abs(sent.astype(np.int64) - 2**31).max() > 2**29


@pytest.mark.parametrize("stage", [STAGES[0], "train"])
def test_pairwise_masks_open_nothing_when_one_is_gone(stage: str) -> None:
    """Without shares nobody can take a lost client's masks away: the round fails."""
    federation = Federation(updates(4), PAIRWISE, lost={stage: [2]})
    report = federation.round()
    assert report.survivors == ()
    assert not federation.moved.any()


@pytest.mark.parametrize("protocol", ["secagg", "pairwise", "ckks"])
def test_training_outside_a_sum_is_refused(protocol: ProtocolName) -> None:
    """A server that asks a secure client for a plain update gets none, and nothing is trained."""
    if protocol == "ckks":
        pytest.importorskip("tenseal")
    federation = Federation(updates(4), SecureSum(clients=4, protocol=protocol))
    plain = super(type(federation.strategy), federation.strategy)
    asked = plain.configure_train(
        1, federation.start, ConfigRecord({"run": "a run", "privacy": "example"}), federation.grid
    )
    replies = federation.grid.send_and_receive(asked)
    assert all("only inside a secure sum" in reply.error.reason for reply in replies)
    assert len(replies) == 4
    assert [each.asked for each in federation.fixed] == [0] * 4


@pytest.mark.parametrize("gone", [[], [3]])
def test_homomorphic_sums_are_exact(gone: list[int]) -> None:
    """CKKS rounds, and the key-holder rounds it away: bit for bit, with a client gone or none."""
    pytest.importorskip("tenseal")
    given = updates(4, width=5000)
    federation = Federation(given, CKKS, lost={"train": gone})
    federation.round()
    arrived = [each for node, each in enumerate(given, start=1) if node not in gone]
    assert np.array_equal(federation.moved, exact_mean(arrived))


@pytest.mark.parametrize(
    ("stage", "gone"), [(STAGES[1], [1]), ("train", [1]), (STAGES[3], [1]), ("train", [2, 3])]
)
def test_homomorphic_sums_stay_shut(stage: str, gone: list[int]) -> None:
    """Without the key-holder at any stage, or with fewer than t clients."""
    pytest.importorskip("tenseal")
    federation = Federation(updates(4), CKKS, lost={stage: gone})
    report = federation.round()
    assert report.survivors == ()
    assert not federation.moved.any()


def test_the_key_holder_opens_one_sum_of_enough_clients() -> None:
    """Two clients' numbers where three are needed: refused; and after that the key is gone."""
    pytest.importorskip("tenseal")
    party = Party(node="1", settings=CKKS, state=ConfigRecord({"session": "s", "next": ""}))
    side = homomorphic.CKKS
    side.queries[KEYS]({"session": "s"}, party)
    public = side.queries[SHARES]({"session": "s"}, party)["public"]
    assert isinstance(public, bytes)
    box = homomorphic.encrypted(np.arange(5), public=public)
    told = {"session": "s", "public": public}
    side.require(told, party)
    side.protect(np.arange(5), told, party)
    two = homomorphic.EncryptedTotal(public=public)
    two.add(box)
    two.add(box)
    with pytest.raises(RequestRefused, match="one of 2 clients; it opens for 3"):
        side.queries[OPEN]({"session": "s", "ciphertexts": two.boxes()}, party)
    assert not list(party.state)


def test_ciphertexts_that_do_not_fit_are_left_out() -> None:
    """Bytes that are no ciphertext, or too few: that client failed, the others are added."""
    pytest.importorskip("tenseal")
    given = updates(4)
    federation = Federation(given, CKKS)
    honest = homomorphic.CKKS.protect
    bad = iter([b"no ciphertext"])

    def protect(whole: Any, asked: Any, party: Party) -> Any:
        wire = honest(whole, asked, party)
        return homomorphic.packed([next(bad)]) if party.node == "3" else wire

    for each in federation.clients:
        each._side = replace(homomorphic.CKKS, protect=protect)
    report = federation.round()
    assert report.failed == {"node 3": "encrypted numbers that cannot be added"}
    assert np.array_equal(federation.moved, exact_mean([given[0], given[1], given[3]]))


@pytest.mark.parametrize("protocol", ["secagg", "pairwise", "ckks"])
def test_a_process_for_every_message_adds_up_as_one(protocol: ProtocolName) -> None:
    """As SuperNodes run clients: between messages only Flower's context lives, as bytes."""
    if protocol == "ckks":
        pytest.importorskip("tenseal")
    given = updates(4)
    settings = SecureSum(clients=4, protocol=protocol)
    federation = Federation(given, settings)

    def anew(fixed: Fixed) -> ClientApp:
        def answer(message: Message, context: Context) -> Message:
            read = context_from_proto(
                ProtoContext.FromString(context_to_proto(context).SerializeToString())
            )
            reply = SecureClient(client=fixed, secure_sum=settings).app(message, read)
            context.state = read.state
            return reply

        return answer  # type: ignore[return-value]

    federation.grid._apps = {n: anew(each) for n, each in enumerate(federation.fixed, start=1)}
    federation.round()
    assert np.array_equal(federation.moved, exact_mean(given))
    kept = [each.state.config_records["secure-sum"] for each in federation.grid._contexts.values()]
    assert [list(state) for state in kept] == [[]] * 4
