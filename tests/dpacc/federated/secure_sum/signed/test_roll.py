"""Whom the server of a signed sum leaves out: who signs nothing, and whom too many do not know."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from dpacc.federated.secure_sum.keys import new_key, public_key
from dpacc.federated.secure_sum.masking import SECAGG
from dpacc.federated.secure_sum.messages import KEYS
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from tests.dpacc.federated.secure_sum.signed.signing_clients import federation, without


def test_who_signs_nothing_or_with_anothers_name_is_left_out(keys: list[SigningKeys]) -> None:
    """The server names the culprit before anybody trains, and the other four add up."""
    for twist in (
        lambda told: told | {"signature": b"none"},
        lambda told: {name: each for name, each in told.items() if name != "signer"},
        lambda told: told | {"signer": keys[1].public},
        lambda told: told | {"mask-key": public_key(new_key())},
        lambda told: told | {"signer": b"\x30" * 4000},
    ):
        signed = federation(keys)
        honest = SECAGG.queries[KEYS]
        queries = {**SECAGG.queries, KEYS: lambda asked, party: twist(honest(asked, party))}  # noqa: B023 - used at once
        signed.clients[0]._side = replace(SECAGG, queries=queries)
        report = signed.round()
        assert report.failed["node 1"] == "it signed other keys than it offered, or nothing"
        assert len(report.survivors) == 4


def test_a_stranger_among_five_is_named_and_costs_one_round_without_training(
    keys: list[SigningKeys], tmp_path: Path
) -> None:
    """Four honest clients do not know the fifth: they refuse before they train, then go on."""
    (tmp_path / "keys" / "site-5.pub").rename(tmp_path / "site-5.pub")
    four = [SigningKeys(own=each.own, pinned=tmp_path / "keys") for each in keys[:4]]
    signed = federation([*four, keys[4]])
    report = signed.round()
    assert report.survivors == ()
    assert signed.history.expelled == {5: "others have no pinned key of it"}
    assert [each.asked for each in signed.fixed] == [0] * 5
    assert signed.round().survivors == ("site-1", "site-2", "site-3", "site-4")


def test_who_lacks_anothers_key_is_told_so_and_expels_nobody(
    keys: list[SigningKeys], tmp_path: Path
) -> None:
    """One of five, and none may collude: the other four add up, client 5 among them; so does the
    one, once its owner has got the file.
    """
    lacking = without("site-5", keys[0], tmp_path / "less")
    signed = federation([lacking, *keys[1:]])
    report = signed.round()
    assert report.survivors == ("site-2", "site-3", "site-4", "site-5")
    assert report.failed["node 1"].startswith("no pinned key of client 5")
    assert "get its public key from its owner" in report.failed["node 1"]
    assert signed.history.expelled == {}
    assert signed.fixed[0].asked == 0
    shutil.copy(tmp_path / "keys" / "site-5.pub", lacking.pinned)
    mended = SigningKeys(own=lacking.own, pinned=lacking.pinned)
    signed.clients[0]._keys = mended
    assert len(signed.round().survivors) == 5


def test_where_all_must_answer_a_key_that_one_lacks_is_found_before_anybody_trains(
    keys: list[SigningKeys], tmp_path: Path
) -> None:
    """Masks by pairs, and two of two: nobody trains for such a sum, and nobody is expelled."""
    lacking = without("site-2", keys[0], tmp_path / "less")
    five = SecureSum(clients=5, protocol="pairwise", signed=True)
    for settings, some in ((five, keys[1:]), (SecureSum(clients=2, signed=True), keys[1:2])):
        signed = federation([lacking, *some], settings)
        report = signed.round()
        assert report.survivors == ()
        assert report.failed["node 1"].startswith("no pinned key of client 2")
        assert [each.asked for each in signed.fixed] == [0] * settings.clients
        assert signed.history.expelled == {}
