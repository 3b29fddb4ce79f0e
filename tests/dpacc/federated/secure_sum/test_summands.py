"""Codes of compressed updates under masks: exact sums in words as narrow as they can be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from safetensors.numpy import load_file
from scipy import stats

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.secure_sum.fixed_point import OutOfRange, Words, signed
from dpacc.federated.secure_sum.keys import pair_key, public_key
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.summands import Summands
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.secure_sum.unmasking import MaskedSum
from dpacc.federated.updates import compression as compressing
from dpacc.federated.updates.compressed_updates import from_integer_sum, to_integers
from dpacc.federated.updates.compression import Compression, PublicCoins
from dpacc.federated.updates.layout import flat, trainable_arrays
from dpacc.federated.updates.packing import Packing
from tests.dpacc.federated.federations import client, server
from tests.dpacc.federated.secure_sum.sums import STAGES, Federation, updates

FIVE = SecureSum(clients=5, threshold=3)
CKKS = SecureSum(clients=5, protocol="ckks")
PRIVACY = ClientPrivacy(noise_multiplier=1.0, clipping_norm=1.0, delta=1e-5)
NARROW = Compression(bits=4, limit=2.0)
HALF = Compression(bits=8, limit=3.0, keep=0.5, selection="random")


def coins(client_id: str) -> PublicCoins:
    """Of the first round."""
    return PublicCoins(run="a run", number=1, client=client_id)


def codes(given: list[np.ndarray], compression: Compression) -> list[np.ndarray]:
    """Each client's, by hand."""
    return [
        to_integers(each, compression=compression, coins=coins(f"site-{n}"))
        for n, each in enumerate(given, start=1)
    ]


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("compression", "levels", "bits"),
    [(NARROW, 7, 8), (HALF, 127, 16), (Compression(bits=8, limit=2.0), 1 << 20, 32)],
)
def test_the_sum_of_codes_is_exact_whoever_drops_out(
    compression: Compression,
    levels: int,
    bits: int,
    stage: str,
    gone: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In words of 8, 16 and 32 bits (there with more levels): what the codes add up to."""
    monkeypatch.setitem(compressing._LEVELS, compression.bits, levels)
    opened, honest = [], MaskedSum.open
    monkeypatch.setattr(MaskedSum, "open", lambda it: opened.append(honest(it)) or opened[-1])
    given = updates(5)
    federation = Federation(
        given, FIVE, lost={stage: list(range(1, gone + 1))}, compression=compression
    )
    report = federation.round()
    arrived = codes(given, compression)[0 if stage == STAGES[3] else gone :]
    assert all(sent.dtype == f"uint{bits}" for sent in federation.masked().values())
    assert np.array_equal(opened[0], sum(arrived))
    assert len(report.survivors) == len(arrived)
    moved = from_integer_sum(
        sum(arrived), compression=compression, count=37, clients=len(arrived), coins=coins("")
    )
    assert np.abs(moved).max() > 0
    assert np.array_equal(federation.moved, moved.astype(np.float32))


def test_what_trains_is_asked_for_a_whole_update() -> None:
    """Codes are made behind it: its request is the server's without the compression."""
    federation = Federation(updates(5), FIVE, compression=HALF)
    federation.round()
    for fixed in federation.fixed:
        assert fixed.asked == 1
        assert fixed.config == {"run": "a run", "privacy": "example", "server-round": 1}


def test_words_are_the_narrowest_that_hold_the_sum() -> None:
    """At the edge of 8 and 16 bits: every client at its largest code adds up without wrapping."""
    for clients, bits, width in ((18, 4, 8), (19, 4, 16), (258, 8, 16), (259, 8, 32)):
        most = clients * Compression(bits=bits, limit=1.0).levels  # type: ignore[arg-type]
        words = Words.fitting(most=most)
        assert words.bits == width
        edges = np.array([most, -most])
        assert signed((edges % (1 << width)).astype(words.dtype)).tolist() == edges.tolist()


@pytest.mark.parametrize(("compression", "bits"), [(NARROW, 8), (HALF, 16)])
def test_masked_codes_are_uniform(compression: Compression, bits: int) -> None:
    """χ² over the 256 values of each byte of a word, of updates of zeros; 10⁻⁶ to fail.

    As sent, and without the masks that a curious server strips. The same test sees with near
    certainty when 2% lack their mask.
    """
    settings = SecureSum(clients=4, threshold=3)
    zeros = [np.zeros(1 << 17, np.float32)] * 4
    federation = Federation(zeros, settings, lost={"train": [4]}, compression=compression)
    assert len(federation.round().survivors) == 3
    views = [*federation.masked().values(), federation.without_pair_masks(4)]
    views += [federation.without_self_mask(node) for node in (1, 2, 3)]
    each = bits // 8

    def worst(sent: np.ndarray) -> list[float]:
        parts = [sent.view(np.uint8)[at::each] for at in range(each)]
        return [float(stats.chisquare(np.bincount(p, minlength=256)).pvalue) for p in parts]

    assert len(views) == 8
    for sent in views:
        assert sent.dtype == f"uint{bits}"
        assert min(worst(sent)) > 1e-6 / 24
        leaking = sent.copy()
        leaking[::50] = 0
        assert max(worst(leaking)) < 1e-12


def test_fewer_bits_cross() -> None:
    """Of 2¹⁵ numbers, up: 4 bytes each, and 1 byte (4 bits) or 2 bytes of every second one."""
    given = updates(5, width=1 << 15)
    received = []
    for compression in (None, NARROW, HALF):
        federation = Federation(given, FIVE, compression=compression)
        received.append(federation.round().bytes_received / 5)
    assert received[0] - received[1] == pytest.approx(3 << 15, abs=64)
    assert received[0] - received[2] == pytest.approx(3 << 15, abs=64)


def retell(federation: Federation, compression: Compression, nodes: Iterable[int]) -> None:
    """Have the server ask these nodes for something else than it says to the others."""
    honest, lied_to = federation.grid.push_messages, set(nodes)

    def push(messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        for each in sent:
            if each.metadata.message_type == "train" and each.metadata.dst_node_id in lied_to:
                config = dict(each.content.config_records["config"])
                each.content["config"] = ConfigRecord({**config, "compression": compression.words})
        return honest(sent)

    federation.grid.push_messages = push  # type: ignore[method-assign]


def test_clients_that_are_told_different_things_yield_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit for client 1, and one at which all other codes are nearly zero: masks stay on."""
    opened, honest = [], MaskedSum.open
    monkeypatch.setattr(MaskedSum, "open", lambda it: opened.append(honest(it)) or opened[-1])
    given, wide = updates(5), Compression(bits=4, limit=1e9)
    federation = Federation(given, FIVE, compression=NARROW)
    retell(federation, wide, [2, 3, 4, 5])
    report = federation.round()
    alone = codes(given, NARROW)[0] + sum(codes(given, wide)[1:])
    assert len(federation.masked()) == 5
    assert np.mean(opened[0] == alone) < 0.2
    assert report.survivors == ()
    assert not federation.moved.any()


def test_masks_depend_on_what_was_told() -> None:
    """Another width, limit, run or round: masks of the same pair have nothing in common."""
    private, public = bytes(range(32)), public_key(bytes(range(32, 64)))
    told = [Words(), Words(bits=8), Words(bits=8, terms="a"), Words(bits=8, terms="b")]
    told += [Words(bits=16, terms="a"), Words(bits=32, terms="a")]
    drawn = [
        pair_key(private=private, public=public, session="s", pair={"1", "2"}, words=words)
        for words in told
    ]
    assert len(set(drawn)) == len(told)


def test_a_sum_that_codes_cannot_have_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nonsense spoils the round, and the run goes on."""
    nonsense = np.full(37, 120)
    federation = Federation(updates(5), FIVE, compression=NARROW)
    monkeypatch.setattr(federation.clients[0], "_whole", lambda moved, summands: nonsense)
    report = federation.round()
    assert report.survivors == ()
    assert all("not one of updates" in why for why in report.failed.values())
    assert not federation.moved.any()


def test_numbers_beyond_the_limit_are_cut_and_those_not_finite_refused() -> None:
    """Ten times the limit counts as the limit; NaN is no number to send."""
    given = [np.full(37, 20.0, np.float32) for _ in range(5)]
    federation = Federation(given, FIVE, compression=NARROW)
    federation.round()
    assert np.allclose(federation.moved, 2.0)
    given[0][5] = np.nan
    packing = Packing(compression=NARROW, run="a run", number=1)
    with pytest.raises(OutOfRange, match="not finite"):
        Summands(settings=FIVE, packing=packing).whole(given[0].astype(float), client="site-1")


@pytest.mark.parametrize(
    ("compression", "reason"),
    [
        (Compression(bits=8, keep=0.5, limit=1.0), "take selection='random'"),
        (Compression(bits=8), "give a public limit"),
        (Compression(keep=0.5, selection="random"), "give a public limit"),
    ],
)
def test_clients_refuse_what_cannot_be_added_before_they_train(
    compression: Compression, reason: str
) -> None:
    """Whatever the server asks for: no client trains, each says why."""
    federation = Federation(updates(5), FIVE)
    retell(federation, compression, range(1, 6))
    report = federation.round()
    assert [each.asked for each in federation.fixed] == [0] * 5
    assert all(reason in why for why in report.failed.values())


def test_noise_that_clients_share_is_not_compressed(tmp_path: Path) -> None:
    """At client level every client refuses, before it trains and charges."""
    federation = Federation(
        updates(5), FIVE, privacy=PRIVACY, folder=tmp_path, most_rounds=3, compression=NARROW
    )
    report = federation.round()
    assert [each.asked for each in federation.fixed] == [0] * 5
    assert all("sized for every number" in why for why in report.failed.values())
    assert not list(tmp_path.rglob("ledger.jsonl"))


@pytest.mark.parametrize("protocol", ["secagg", "pairwise"])
def test_a_federation_adds_compressed_updates(folder: Path, protocol: ProtocolName) -> None:
    """One round of a tiny model: the adapter is the mean of the codes, made and read by hand."""
    settings = SecureSum(clients=3, protocol=protocol)
    compression = Compression(bits=8, limit=0.5, keep=0.5, selection="random")
    federation = server(folder, num_clients=3, rounds=1, secure_sum=settings)
    before = flat(trainable_arrays(federation.model))
    clients = [SecureClient(client=client(folder, n), secure_sum=settings) for n in (1, 2, 3)]
    history = federation.train(clients=clients, compression=compression)
    total = np.zeros(compression.kept(before.size), dtype=np.int64)
    for n in (1, 2, 3):
        sent = load_file(folder / f"site-{n}" / "last_update.safetensors")
        drawn = PublicCoins(run=federation._run, number=1, client=f"site-{n}")
        total += to_integers(
            (flat(sent) - before).astype(np.float32), compression=compression, coins=drawn
        )
    moved = from_integer_sum(
        total, compression=compression, count=before.size, clients=3, coins=drawn
    )
    assert np.abs(moved).max() > 0
    after = flat(trainable_arrays(federation.model))
    assert np.array_equal(after, (before + moved).astype(np.float32))
    assert history.rounds[0].survivors == ("site-1", "site-2", "site-3")
    assert history.guarantee().worst_server.server.void_because == ("fixed-seed",)


@pytest.mark.parametrize(
    ("settings", "compression", "reason"),
    [
        ({}, Compression(bits=8), "give a public limit"),
        ({}, Compression(bits=8, limit=1.0, keep=0.5), "take selection='random'"),
        ({"secure_sum": CKKS}, HALF, "as wide whatever lies in them"),
        ({"client_privacy": PRIVACY, "privacy_budget": None}, HALF, "sized for every number"),
    ],
)
def test_what_cannot_be_compressed_is_refused_at_configuration(
    folder: Path, settings: dict[str, Any], compression: Compression, reason: str
) -> None:
    """Codes that mean nothing in a sum, encrypted numbers, and noise that clients share."""
    federation = server(folder, **{"num_clients": 5, "secure_sum": FIVE, **settings})
    with pytest.raises(ConfigurationError, match=reason):
        federation.app(compression=compression)
