"""Masks whose seeds are shared: sums are exact whoever drops out, or are not opened."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.app import ConfigRecord, Message
from scipy import stats

from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum import keys
from dpacc.federated.secure_sum.fixed_point import FixedPoint, Words, residues, signed
from dpacc.federated.secure_sum.keys import mask, new_key, pair_key, public_key
from dpacc.federated.secure_sum.masking import SECAGG
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Party, Payload
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shamir import SharesDisagree, combined
from tests.dpacc.federated.secure_sum.sums import STAGES, Federation, updates

FIVE = SecureSum(clients=5, threshold=3)
GRID = FixedPoint.fitting(clients=5, reach=FIVE.reach)


def exact_mean(given: list[np.ndarray]) -> np.ndarray:
    """What the whole numbers of these updates add up to, over their number."""
    whole = sum(np.rint(each.astype(np.float64) * 2.0**GRID.fraction_bits) for each in given)
    return (whole * GRID.spacing / len(given)).astype(np.float32)


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_the_sum_is_exact_whoever_drops_out(stage: str, gone: int) -> None:
    """Up to n − t gone at any stage: the mean of those whose numbers arrived, bit for bit."""
    given = updates(5)
    federation = Federation(given, FIVE, lost={stage: list(range(1, gone + 1))})
    report = federation.round()
    arrived = given if stage == STAGES[3] else given[gone:]
    assert np.array_equal(federation.moved, exact_mean(arrived))
    assert len(report.survivors) == len(arrived)


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_nothing_is_opened(stage: str) -> None:
    """n − t + 1 gone at any stage: the adapter stays as it was, and the report says why."""
    federation = Federation(updates(5), FIVE, lost={stage: [1, 3, 5]})
    report = federation.round()
    assert not federation.moved.any()
    assert report.survivors == ()
    assert len(report.failed) == 5
    assert any("3 or more" in why for why in report.failed.values())


def test_clients_drop_at_every_stage_of_one_round() -> None:
    """One gone before it shares, one while it trains: the other four of six add up."""
    given = updates(6)
    settings = SecureSum(clients=6, threshold=4)
    lost = {STAGES[1]: [1], STAGES[2]: [2]}
    federation = Federation(given, settings, lost=lost)
    federation.round()
    grid = FixedPoint.fitting(clients=6, reach=settings.reach)
    whole = sum(grid.rounded(each.astype(np.float64)) for each in given[2:])
    assert np.array_equal(federation.moved, (whole * grid.spacing / 4).astype(np.float32))


def test_sums_of_whole_numbers_never_wrap() -> None:
    """The largest numbers that clients may send add up without error, negative ones too."""
    most = np.array([GRID.most, -GRID.most])
    total = np.zeros(2, dtype=np.uint32)
    for _ in range(5):
        total += residues(GRID.within(most))
    assert signed(total).tolist() == [5 * GRID.most, -5 * GRID.most]


def test_what_does_not_fit_is_not_sent() -> None:
    """A number beyond the stated reach: that client refuses, the others' mean is exact."""
    given = updates(5)
    given[0][3] = 17.0
    federation = Federation(given, FIVE)
    report = federation.round()
    assert "raise reach" in report.failed["node 1"]
    assert 1 not in federation.masked()
    assert np.array_equal(federation.moved, exact_mean(given[1:]))


class Sum:
    """Five parties whose server is the test."""

    def __init__(self, settings: SecureSum = FIVE) -> None:
        self.parties = {
            str(n): Party(
                node=str(n),
                settings=settings,
                state=ConfigRecord({"session": "s", "next": ""}),
            )
            for n in range(1, settings.clients + 1)
        }
        self.offers = {n: self.ask(n, KEYS, {}) for n in self.parties}
        self.roster = {
            "nodes": list(self.parties),
            "mask-keys": [self.offers[n]["mask-key"] for n in self.parties],
            "seal-keys": [self.offers[n]["seal-key"] for n in self.parties],
        }

    def ask(self, node: str, stage: str, told: Payload) -> Payload:
        return SECAGG.queries[stage]({"session": "s", **told}, self.parties[node])

    def shared(self) -> Sum:
        """After shares have gone round, and every client has sent its numbers."""
        self.handed = {n: self.ask(n, SHARES, self.roster) for n in self.parties}
        for node, party in self.parties.items():
            told = {"session": "s", **self.forwarded(node)}
            SECAGG.require(told, party)
            SECAGG.protect(np.zeros(3, dtype=np.int64), told, party)
        return self

    def forwarded(self, node: str) -> Payload:
        boxes = {
            peer: dict(zip(told["nodes"], told["sealed"], strict=True))
            for peer, told in self.handed.items()
            if peer != node
        }
        at = list(self.parties).index(node)
        return {
            "present": list(self.handed),
            "sources": list(boxes),
            "sealed": [boxes[peer][node] for peer in boxes],
            "commitments": [self.handed[peer]["commitments"][at] for peer in boxes],
        }


def test_a_server_that_asks_for_both_secrets_gets_neither() -> None:
    """A client on both lists: refused, and an honest question afterwards finds nothing left."""
    everybody = Sum().shared()
    nodes = list(everybody.parties)
    for node in nodes:
        with pytest.raises(RequestRefused, match="both secrets"):
            everybody.ask(node, OPEN, {"arrived": nodes, "dropped": ["2"]})
        with pytest.raises(RequestRefused, match="out of its order"):
            everybody.ask(node, OPEN, {"arrived": nodes, "dropped": []})
        assert not list(everybody.parties[node].state)


def test_telling_clients_different_things_yields_one_secret_at_most() -> None:
    """Whatever split of the five a server tries, t = 3 shares of both secrets need six clients."""
    nodes = ["1", "2", "3", "4", "5"]
    rest = [n for n in nodes if n != "2"]
    for split in range(5):
        everybody = Sum().shared()
        found: dict[str, list[bytes]] = {"seed": [], "key": []}
        for at, node in enumerate(rest):
            lists = (nodes, []) if at < split else (rest, ["2"])
            given = everybody.ask(node, OPEN, {"arrived": lists[0], "dropped": lists[1]})
            share = dict(zip(given["nodes"], given["shares"], strict=True))["2"]
            found["key" if lists[1] else "seed"].append(share)
        opened = [kind for kind, each in found.items() if len(each) >= FIVE.fewest]
        assert len(opened) <= 1
        assert sum(map(len, found.values())) == 4


def test_fewer_shares_than_the_threshold_yield_no_secret() -> None:
    """Two of three needed shares combine to something else, or to nothing; three to the seed."""
    everybody = Sum().shared()
    nodes = list(everybody.parties)
    given = [everybody.ask(n, OPEN, {"arrived": nodes, "dropped": []}) for n in nodes]
    shares = [dict(zip(g["nodes"], g["shares"], strict=True))["1"] for g in given]
    digest = everybody.handed["1"]["seed-digest"]

    def opened(some: list[bytes]) -> bytes | None:
        try:
            return hashlib.sha256(combined(some, threshold=len(some))).digest()
        except SharesDisagree:
            return None

    assert [opened(three) for three in (shares[:3], shares[2:], shares[::2])] == [digest] * 3
    assert digest not in [opened(two) for two in (shares[:2], shares[3:], shares[::4])]


def refuse_roster(change: Callable[[Payload], None]) -> str:
    everybody = Sum()
    change(everybody.roster)
    with pytest.raises(RequestRefused) as refused:
        everybody.ask("1", SHARES, everybody.roster)
    return str(refused.value)


def test_a_list_of_keys_that_does_not_fit_is_refused() -> None:
    """Repeated keys, a wrong one of one's own, too few or too many, no key at all, a node twice."""

    def repeat(roster: Payload) -> None:
        roster["mask-keys"][1] = roster["mask-keys"][2]

    def impersonate(roster: Payload) -> None:
        roster["mask-keys"][0] = public_key(new_key())

    def shorten(roster: Payload) -> None:
        for each in roster.values():
            del each[2:]

    def crowd(roster: Payload) -> None:
        roster["nodes"].append("6")
        roster["mask-keys"].append(public_key(new_key()))
        roster["seal-keys"].append(public_key(new_key()))

    def weaken(roster: Payload) -> None:
        roster["mask-keys"][1] = bytes(32)

    def double(roster: Payload) -> None:
        roster["nodes"][1] = "3"

    assert "repeats" in refuse_roster(repeat)
    assert "lacks this client's own" in refuse_roster(impersonate)
    assert "3 or more" in refuse_roster(shorten)
    assert "this sum is for 5" in refuse_roster(crowd)
    assert "holds what is none" in refuse_roster(weaken)
    assert "do not fit" in refuse_roster(double)


def test_shares_that_were_changed_or_sent_elsewhere_are_refused() -> None:
    """A flipped bit, and a box that was sealed for another client."""
    for change in (
        lambda boxes: [boxes[0][:-1] + bytes([boxes[0][-1] ^ 1]), *boxes[1:]],
        lambda boxes: [boxes[1], boxes[0], *boxes[2:]],
    ):
        everybody = Sum()
        everybody.handed = {
            n: everybody.ask(n, SHARES, everybody.roster) for n in everybody.parties
        }
        told = everybody.forwarded("1")
        told["sealed"] = change(told["sealed"])
        with pytest.raises(RequestRefused, match="changed on its way"):
            SECAGG.require({"session": "s", **told}, everybody.parties["1"])


def test_each_stage_is_answered_once_and_in_order() -> None:
    """Opening before training, sharing twice, and another session's words are refused."""
    everybody = Sum()
    with pytest.raises(RequestRefused, match="out of its order"):
        everybody.ask("1", OPEN, {"arrived": [], "dropped": []})
    everybody = Sum()
    everybody.ask("1", SHARES, everybody.roster)
    with pytest.raises(RequestRefused, match="out of its order"):
        everybody.ask("1", SHARES, everybody.roster)
    with pytest.raises(RequestRefused, match="out of its order"):
        everybody.ask("2", SHARES, {**everybody.roster, "session": "another"})


def test_wrong_shares_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that hands out shares of another seed is noticed: the adapter stays as it was."""
    import dpacc.federated.secure_sum.masking as masking

    honest = masking.shares
    monkeypatch.setattr(masking, "shares", lambda secret, **how: honest(new_key(), **how))
    federation = Federation(updates(5), FIVE)
    report = federation.round()
    assert not federation.moved.any()
    assert all("not what was said" in why for why in report.failed.values())


def test_the_mask_has_a_known_answer() -> None:
    """X25519, HKDF-SHA-256 (extract and expand by hand), then AES-256-CTR in 32-bit words."""
    one, two = bytes(range(32)), bytes(range(32, 64))
    agreed = X25519PrivateKey.from_private_bytes(one).exchange(
        X25519PublicKey.from_public_bytes(public_key(two))
    )
    extracted = hmac.new(bytes(32), agreed, "sha256").digest()
    info = b"dpacc secure sum/pair mask/s/1/2"
    key = hmac.new(extracted, info + b"\x01", "sha256").digest()
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(40))
    words = [int.from_bytes(stream[at : at + 4], "little") for at in range(0, 36, 4)]
    for private, public in ((one, public_key(two)), (two, public_key(one))):
        drawn = pair_key(private=private, public=public, session="s", pair={"2", "1"})
        assert mask(drawn, count=9).tolist() == words


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_mask_is_one_stream_however_it_is_cut(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 words and the whole are the same mask; taken away again, nothing is left."""
    words, key = Words(bits=bits), new_key()
    whole = mask(key, count=1003, words=words)
    monkeypatch.setattr(keys, "_CHUNK", 64)
    assert np.array_equal(mask(key, count=1003, words=words), whole)
    assert len(set(whole[:: 64 // bits].tolist())) > 80
    keys.add_mask(whole, key, taken=True)
    assert not whole.any()


def byte_counts(sent: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(sent.view(np.uint8)[at::4], minlength=256) for at in range(4)])


def test_masked_numbers_are_uniform() -> None:
    """χ² over the 256 values of each of four bytes, of updates of zeros; 10⁻⁶ to fail.

    As sent, and as a curious server strips them: of their own mask, whose seed it learns, and of
    the masks with peers where they come too late, when it learns the key. Among 65,536 numbers the
    test sees with near certainty when 2% lack their mask.
    """
    settings = SecureSum(clients=4, threshold=3)
    federation = Federation([np.zeros(1 << 16, np.float32)] * 4, settings, lost={"train": [4]})
    report = federation.round()
    assert len(report.survivors) == 3
    views = [*federation.masked().values(), federation.without_pair_masks(4)]
    views += [federation.without_self_mask(node) for node in (1, 2, 3)]
    assert len(views) == 8
    for sent in views:
        assert stats.chisquare(byte_counts(sent), axis=1).pvalue.min() > 1e-6 / 32
        leaking = sent.copy()
        leaking[::50] = 0
        assert stats.chisquare(byte_counts(leaking), axis=1).pvalue.max() < 1e-12


def test_the_server_cannot_tell_who_sent_what() -> None:
    """Two clients swap their updates: the sum stays, and nothing else in the server's view tells.

    Over 30 sums each way, client 1's numbers without their own mask are correlated with the first
    update, and the two samples compared (Kolmogorov-Smirnov, 1 in 10⁴ to fail). Without the masks
    of the pairs the same test is certain.
    """
    first, second, third = updates(3, seed=1)
    settings = SecureSum(clients=3, threshold=2)

    def score(numbers: np.ndarray) -> float:
        return float(np.corrcoef(numbers, first)[0, 1])

    means, scores = set(), []
    for given in ([first, second, third], [second, first, third]):
        scores.append([])
        for _ in range(30):
            federation = Federation(given, settings)
            federation.round()
            means.add(federation.moved.tobytes())
            scores[-1].append(score(signed(federation.without_self_mask(1)).astype(float)))
    assert len(means) == 1
    assert stats.ks_2samp(*scores).pvalue > 1e-4
    assert stats.ks_2samp([score(first)] * 30, [score(second)] * 30).pvalue < 1e-12


def test_a_client_trains_once_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second request to train within one sum is refused before any training."""
    federation = Federation(updates(3), SecureSum(clients=3, threshold=2))
    honest = federation.grid.push_messages

    def push(messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        if sent and sent[0].metadata.message_type == "train":
            honest(sent)
        return honest(sent)

    monkeypatch.setattr(federation.grid, "push_messages", push)
    report = federation.round()
    assert [each.asked for each in federation.fixed] == [1, 1, 1]
    assert all("out of its order" in why for why in report.failed.values())


def test_a_server_with_other_settings_is_refused() -> None:
    """Another threshold, however legal: every client says so before it makes a key."""
    federation = Federation(updates(5), FIVE)
    federation.strategy._agreed = SecureSum(clients=5, threshold=4).agreed(None)
    report = federation.round()
    assert all("differs from this client's" in why for why in report.failed.values())
    assert [each.asked for each in federation.fixed] == [0] * 5
