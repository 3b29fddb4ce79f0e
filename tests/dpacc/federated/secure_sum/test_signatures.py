"""Sums in which a server can neither invent a client nor tell two stories of who is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from dpacc_accounting import price_federation, read_federation, read_ledger
from flwr.app import Message

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.secure_sum import masking
from dpacc.federated.secure_sum.keys import new_key, public_key
from dpacc.federated.secure_sum.masking import SECAGG
from dpacc.federated.secure_sum.messages import CONFIRM, KEYS, OPEN, RECORD, SHARES
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoise, SharedNoiseLedger
from dpacc.federated.secure_sum.signed.signatures import SigningKeys, is_signed, list_digest
from dpacc.federated.secure_sum.summing_client import SecureClient
from tests.dpacc.federated.secure_sum.sums import Federation, Fixed, updates
from tests.dpacc.federated.secure_sum.test_secagg import exact_mean

FIVE = SecureSum(clients=5, threshold=3, signed=True)
SIGNED_STAGES = (
    f"query.{KEYS}",
    f"query.{SHARES}",
    "train",
    f"query.{CONFIRM}",
    f"query.{OPEN}",
)


def write_key(folder: Path, name: str, *, kind: str = "ed25519") -> Path:
    """A private key, and its public half in the folder that all pin."""
    made: Any = {
        "ed25519": Ed25519PrivateKey.generate,
        "ecdsa": lambda: generate_private_key(SECP384R1()),
        "rsa": lambda: rsa_key(public_exponent=65537, key_size=2048),
    }[kind]()
    pinned = folder / "keys"
    pinned.mkdir(exist_ok=True)
    public = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (pinned / f"{name}.pub").write_bytes(public + b" somebody@somewhere\n")
    path = folder / f"{name}.key"
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKeys]:
    """Five clients' that know one another: four of one kind, and one of the other."""
    kinds = ["ed25519"] * 4 + ["ecdsa"]
    own = [write_key(tmp_path, f"site-{n}", kind=kind) for n, kind in enumerate(kinds, start=1)]
    return [SigningKeys(own=each, pinned=tmp_path / "keys") for each in own]


def federation(keys: Sequence[SigningKeys], settings: SecureSum = FIVE, **more: Any) -> Federation:
    """As `Federation`, of clients that sign."""
    plain = Federation(updates(len(keys)), replace(settings, signed=False), **more)
    clients = [
        SecureClient(client=each, secure_sum=settings, keys=own)
        for each, own in zip(plain.fixed, keys, strict=True)
    ]
    plain.clients = clients
    plain.grid._apps = {n: each.app for n, each in enumerate(clients, start=1)}
    plain.strategy._settings, plain.strategy._agreed = settings, settings.agreed(None)
    return plain


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


def tampering(signed: Federation, stage: str, change: Callable[[int, Any], None]) -> None:
    """A server that changes what it asks some clients in one stage."""
    honest = signed.grid.send_and_receive

    def send(messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        for each in sent:
            if each.metadata.message_type == stage:
                change(each.metadata.dst_node_id, each.content.config_records[RECORD])
        return list(honest(sent, timeout=timeout))

    signed.grid.send_and_receive = send  # type: ignore[method-assign, assignment]


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


def without(lost: str, keys: SigningKeys, folder: Path) -> SigningKeys:
    """The same client's keys, whose folder holds an older one of another's."""
    shutil.copytree(keys.pinned, folder)
    older = folder.with_name("older")
    older.mkdir()
    write_key(older, lost)
    shutil.copy(older / "keys" / f"{lost}.pub", folder)
    return SigningKeys(own=keys.own, pinned=folder)


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


def test_settings_and_keys_that_do_not_fit_are_refused(
    keys: list[SigningKeys], tmp_path: Path
) -> None:
    """Signed without keys, keys without signatures, too few, twice the same, none of one's own."""
    client = Fixed("a", np.zeros(3))
    unsigned = replace(FIVE, signed=False)
    for settings, some in ((FIVE, None), (unsigned, keys[0])):
        with pytest.raises(ConfigurationError, match="a signed sum takes"):
            SecureClient(client=client, secure_sum=settings, keys=some)
    with pytest.raises(ConfigurationError, match="holds 5 keys, and no sum of fewer than 6"):
        SecureClient(
            client=client,
            secure_sum=SecureSum(clients=8, threshold=6, signed=True),
            keys=keys[0],
        )
    with pytest.raises(ConfigurationError, match="opens what the server sends"):
        SecureSum(clients=5, protocol="ckks", signed=True)
    pinned = tmp_path / "keys"
    (pinned / "again.pub").write_bytes((pinned / "site-1.pub").read_bytes())
    with pytest.raises(ConfigurationError, match="pin each once"):
        SigningKeys(own=keys[0].own, pinned=pinned)
    (pinned / "again.pub").unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    other = write_key(alone, "other")
    with pytest.raises(ConfigurationError, match=r"5 public keys and not that of .*other\.key"):
        SigningKeys(own=other, pinned=pinned)
    for wrong in (tmp_path / "none", pinned / "site-1.pub", write_key(alone, "rsa", kind="rsa")):
        with pytest.raises(ConfigurationError, match=r"private key|another kind"):
            SigningKeys(own=wrong, pinned=pinned)
    with pytest.raises(ConfigurationError, match="another kind of key"):
        SigningKeys(own=other, pinned=alone / "keys")


def test_a_signature_is_of_one_purpose_key_and_text(keys: list[SigningKeys]) -> None:
    """Another key, purpose, order or cut of the words does not pass, nor does anything odd."""
    for one in (keys[0], keys[4]):
        signature = one.sign("keys", "a", "bc")
        assert is_signed(signature, one.public, "keys", "a", "bc")
        assert not is_signed(signature, keys[1].public, "keys", "a", "bc")
        assert not is_signed(signature, one.public, "survivors", "a", "bc")
        assert not is_signed(signature, one.public, "keys", "ab", "c")
        for odd in (None, b"", "text", b"\x00" * 5000, public_key(new_key())):
            assert not is_signed(odd, one.public, "keys", "a", "bc")
            assert not is_signed(signature, odd, "keys", "a", "bc")
        assert not is_signed(signature, one.public + b"\x00", "keys", "a", "bc")
    assert list_digest(["1", "23"]) != list_digest(["12", "3"]) != list_digest(["1"], ["23"])


def test_what_a_ledger_says_of_invented_clients_falls_with_signatures_alone(
    tmp_path: Path,
) -> None:
    """Signed: no note, and another assumption where rounds are priced; the ε is the same."""
    privacy = ClientPrivacy(noise_multiplier=2.0, clipping_norm=0.5, delta=1e-6)
    said, prices = [], []
    for signed in (False, True):
        settings = SecureSum(clients=5, threshold=4, colluding=1, signed=signed)
        noise = SharedNoise(privacy=privacy, settings=settings, dimension=37)
        path = tmp_path / f"{signed}.jsonl"
        ledger = SharedNoiseLedger(noise=noise, path=path)
        ledger.charge(survivors=5)
        found = price_federation(federation=read_federation(document=ledger.federation()))
        ledger.close()
        said.append([note.subject for note in read_ledger(path=path).notes])
        prices.append(found.prices[-1].server.epsilon)
        assert any("unsigned keys" in each for each in found.assumptions) != signed
        assert any("each client has pinned" in each for each in found.assumptions) == signed
    assert said == [["unsigned keys"], []]
    assert prices[0] == prices[1]


def test_settings_of_unsigned_sums_are_what_they_were() -> None:
    """So that a server and its clients, and their ledgers, go on across versions."""
    plain = SecureSum(clients=5, threshold=3)
    assert {"signed", "neighbours", "fewest"}.isdisjoint(plain.stated)
    assert "signed" not in plain.agreed(None)
    assert plain.agreed(None) != replace(plain, signed=True).agreed(None)
    assert masking.SECAGG.queries.keys() == {KEYS, SHARES, CONFIRM, OPEN}


def node(**more: Any) -> NodeSettings:
    """A node's own file."""
    file = {
        "client-id": "site-1",
        "data-path": "notes.jsonl",
        "folder": "here",
        "model": "model",
        "task": "causal-lm",
        "max-length": 64,
        "expected-batch-size": 4,
        "epsilon": 2.0,
        "delta": 1e-5,
        "most-rounds": 5,
        "secure-threshold": 3,
        "secure-clients": 5,
    }
    return read_config(NodeSettings, {**file, **more})


def test_a_nodes_file_names_its_key_and_whom_it_knows(
    keys: list[SigningKeys], tmp_path: Path
) -> None:
    """With both its sums are signed, and agree with a run that says so; one alone is refused."""
    both = {"secure-key": str(keys[0].own), "secure-keys": str(tmp_path / "keys")}
    signed = node(**both)
    assert signed.secure_sum == FIVE
    assert signed.signing_keys == keys[0]
    assert signed.signing_keys is not None
    assert signed.signing_keys.count == 5
    assert node().secure_sum == replace(FIVE, signed=False)
    assert node().signing_keys is None
    run = {
        "model": "m",
        "num-clients": 5,
        "rounds": 5,
        "epsilon": 8.0,
        "delta": 1e-5,
        "task": "causal-lm",
    }
    asked = read_config(RunSettings, {**run, "secure-threshold": 3, "secure-signed": True})
    assert asked.secure_sum == FIVE
    with pytest.raises(ConfigurationError, match="give both, or neither to believe"):
        node(**{"secure-key": "a.key"})
    with pytest.raises(ConfigurationError, match="keys are checked in secure sums"):
        node(**both, **{"secure-threshold": "null", "secure-clients": "null"})
