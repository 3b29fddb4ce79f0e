"""Sums in which a server can neither invent a client nor tell two stories of who is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpacc.federated.secure_sum.keys import new_key, public_key
from dpacc.federated.secure_sum.messages import CONFIRM, OPEN
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from tests.dpacc.federated.secure_sum.signed.signing_clients import (
    FIVE,
    SIGNED_STAGES,
    federation,
    tampering,
    write_key,
)
from tests.dpacc.federated.secure_sum.sums import Federation, updates
from tests.dpacc.federated.secure_sum.test_secagg import exact_mean


@pytest.mark.parametrize("stage", SIGNED_STAGES)
def test_a_signed_sum_is_exact_whoever_drops_out(stage: str, keys: list[SigningKeys]) -> None:
    """Two of five gone at any stage: the mean of those whose numbers arrived, bit for bit."""
    signed = federation(keys, lost={stage: [2, 4]})
    report = signed.round()
    given = [each.moved for each in signed.fixed]
    late = stage in SIGNED_STAGES[3:]
    arrived = given if late else [given[0], given[2], given[4]]
    assert np.array_equal(signed.moved, exact_mean(arrived))
    assert len(report.survivors) == len(arrived)


@pytest.mark.parametrize("stage", SIGNED_STAGES)
def test_below_the_threshold_a_signed_sum_stays_shut(stage: str, keys: list[SigningKeys]) -> None:
    """Three of five gone at any stage: the adapter stays as it was."""
    signed = federation(keys, lost={stage: [1, 2, 4]})
    assert signed.round().survivors == ()
    assert not signed.moved.any()


def test_pairwise_masks_are_signed_too(keys: list[SigningKeys]) -> None:
    """All five: exact, and no list is signed, for there is none."""
    settings = SecureSum(clients=5, protocol="pairwise", signed=True)
    signed = federation(keys, settings)
    signed.round()
    assert np.array_equal(signed.moved, exact_mean([each.moved for each in signed.fixed]))


def test_a_server_cannot_put_its_own_keys_in_anothers_name(keys: list[SigningKeys]) -> None:
    """All but client 1's keys are the server's, with the true signatures: it sends nothing."""

    def change(node: int, told: Any) -> None:
        if node == 1:
            own = told["nodes"].index("1")
            for name in ("mask-keys", "seal-keys"):
                told[name] = [
                    each if at == own else public_key(new_key())
                    for at, each in enumerate(told[name])
                ]

    signed = federation(keys)
    tampering(signed, SIGNED_STAGES[1], change)
    report = signed.round()
    assert report.failed["node 1"].startswith("no pinned key of client 2")
    assert 1 not in signed.masked()
    assert signed.fixed[0].asked == 0


def test_a_server_cannot_invent_clients(keys: list[SigningKeys], tmp_path: Path) -> None:
    """Two real clients and three with keys of the server's own, who add up what is theirs."""
    invented = tmp_path / "invented"
    invented.mkdir()
    others = [write_key(invented, f"site-{n}") for n in (3, 4, 5)]
    for each in keys[:2]:
        write = (invented / "keys") / each.own.with_suffix(".pub").name
        write.write_bytes((tmp_path / "keys" / write.name).read_bytes())
    theirs = [SigningKeys(own=each, pinned=invented / "keys") for each in others]
    signed = federation([*keys[:2], *theirs])
    report = signed.round()
    assert report.survivors == ("site-3", "site-4", "site-5")
    assert {*signed.masked()} == {3, 4, 5}
    assert [each.asked for each in signed.fixed[:2]] == [0, 0]
    assert "no pinned key of client" in report.failed["node 1"]


def test_keys_are_for_one_run_and_round(keys: list[SigningKeys]) -> None:
    """A sum that was begun for another round is refused before anybody trains, signed or not."""
    for signed in (federation(keys), Federation(updates(5), replace(FIVE, signed=False))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "dpacc.federated.server.secure_sum_strategy.session_of", lambda run, number: "[7] "
            )
            report = signed.round()
        assert all("another run or round" in why for why in report.failed.values())
        assert [each.asked for each in signed.fixed] == [0] * 5


def test_two_stories_of_who_arrived_open_nothing(keys: list[SigningKeys]) -> None:
    """Clients 4 and 5 are told that 1 is gone, the others that it is there.

    Without signatures all five give shares to both: three of one secret, and two of the other.
    """

    def change(node: int, told: Any) -> None:
        if node in (4, 5):
            told["arrived"] = [each for each in told["arrived"] if each != "1"]
            told["dropped"] = ["1"]

    for stage, refused in ((CONFIRM, "fewer than 4 clients signed"), (OPEN, "another than this")):
        signed = federation(keys, SecureSum(clients=5, threshold=4, signed=True))
        tampering(signed, f"query.{stage}", change)
        if stage == CONFIRM:
            tampering(signed, f"query.{OPEN}", change)
        report = signed.round()
        assert not signed.moved.any()
        assert report.survivors == ()
        opened = [each for step, _, each in signed.grid.seen if step == SIGNED_STAGES[4]]
        refusals = [each.error.reason for each in opened if each.has_error()]
        assert any(refused in each for each in refusals)
        given = [each for each in opened if not each.has_error()]
        assert len(given) < 4


def test_signatures_that_are_kept_back_repeated_or_of_another_sum_open_nothing(
    keys: list[SigningKeys],
) -> None:
    """Two signatures of five, one signature in five names, and those of the round before."""
    kept: dict[str, Any] = {}

    def few(node: int, told: Any) -> None:
        told["signers"], told["signatures"] = told["signers"][:2], told["signatures"][:2]

    def same(node: int, told: Any) -> None:
        told["signatures"] = told["signatures"][:1] * len(told["signers"])

    def old(node: int, told: Any) -> None:
        told["signatures"] = kept.setdefault("before", list(told["signatures"]))

    for change in (few, same):
        signed = federation(keys)
        tampering(signed, SIGNED_STAGES[4], change)
        assert signed.round().survivors == ()
        assert not signed.moved.any()
    signed = federation(keys)
    tampering(signed, SIGNED_STAGES[4], old)
    assert len(signed.round().survivors) == 5
    assert signed.round().survivors == ()
