"""Whose key counts, what a signature is of, and what is said of sums without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import price_federation, read_federation, read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.secure_sum import masking
from dpacc.federated.secure_sum.keys import new_key, public_key
from dpacc.federated.secure_sum.messages import CONFIRM, KEYS, OPEN, SHARES
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoise, SharedNoiseLedger
from dpacc.federated.secure_sum.signed.signatures import SigningKeys, is_signed, list_digest
from dpacc.federated.secure_sum.summing_client import SecureClient
from tests.dpacc.federated.secure_sum.signed.signing_clients import FIVE, write_key
from tests.dpacc.federated.secure_sum.sums import Fixed


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


def test_settings_of_unsigned_sums_are_what_they_were() -> None:
    """So that a server and its clients, and their ledgers, go on across versions."""
    plain = SecureSum(clients=5, threshold=3)
    assert {"signed", "neighbours", "fewest"}.isdisjoint(plain.stated)
    assert "signed" not in plain.agreed(None)
    assert plain.agreed(None) != replace(plain, signed=True).agreed(None)
    assert masking.SECAGG.queries.keys() == {KEYS, SHARES, CONFIRM, OPEN}


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
