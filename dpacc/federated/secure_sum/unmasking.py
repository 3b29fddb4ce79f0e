"""The server's side of "secagg" and "pairwise": who is there, the masked sum, and its opening."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from flwr.app import ConfigRecord

from dpacc.errors import ConfigurationError
from dpacc.federated.secure_sum.exchange import Exchange, SumNotOpened, words_of
from dpacc.federated.secure_sum.fixed_point import WHOLE, Integers, Residues, Words, signed
from dpacc.federated.secure_sum.keys import (
    SEAL_BYTES,
    add_mask,
    add_pair_mask,
    is_public_key,
    pair_key,
    public_key,
    self_key,
)
from dpacc.federated.secure_sum.messages import (
    CONFIRM,
    KEYS,
    OPEN,
    SHARES,
    Payload,
    ProtectedNumbers,
)
from dpacc.federated.secure_sum.neighbourhoods import circle_bits
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shamir import SHARE_BYTES, SharesDisagree, commitment, fitting
from dpacc.federated.secure_sum.signed.roll import SignedRoll

DIGEST_BYTES = hashlib.sha256().digest_size
SEALED_BYTES = 2 * SHARE_BYTES + SEAL_BYTES


class MaskedSum:
    """One sum, as the server conducts it.

    Args:
        settings: protocol and threshold.
        exchange: this sum's queries.
        count: how many numbers each client adds.
        words: in which they cross.
    """

    def __init__(
        self, *, settings: SecureSum, exchange: Exchange, count: int, words: Words = WHOLE
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._words = words
        self._masks: dict[str, bytes] = {}
        self._seals: dict[str, bytes] = {}
        self._dealt: dict[str, _Dealt] = {}
        self._nodes: dict[str, int] = {}
        self._roll = SignedRoll(settings=settings, exchange=exchange)
        self._arrived: dict[str, None] = {}
        self._total: Residues = np.zeros(count, dtype=words.dtype)

    def invite(self, nodes: Sequence[int], agreed: str) -> dict[int, Payload]:
        """Everything before training: what each client that is still there needs for it.

        Raises:
            SumNotOpened: fewer than the threshold are there.
        """
        offers = self._exchange.query(KEYS, {node: {"agreed": agreed} for node in nodes})
        for node, offer in offers.items():
            mask_key, seal_key = offer.get("mask-key"), offer.get("seal-key")
            known = {*self._masks.values(), *self._seals.values()}
            if not is_public_key(mask_key) or not is_public_key(seal_key):
                self._exchange.blame(node, "it offered keys that are none")
            elif mask_key == seal_key or known & {mask_key, seal_key}:
                self._exchange.blame(node, "it offered a key twice, or another's")
            elif self._settings.signed and not self._roll.take(node, offer, agreed=agreed):
                self._exchange.blame(node, "it signed other keys than it offered, or nothing")
            else:
                name = str(node)
                self._nodes[name] = node
                self._masks[name], self._seals[name] = cast(bytes, mask_key), cast(bytes, seal_key)
        self._require(len(self._masks), "offered keys")
        roster: Payload = {
            "nodes": list(self._masks),
            "mask-keys": list(self._masks.values()),
            "seal-keys": list(self._seals.values()),
        }
        if self._settings.signed:
            roster |= self._roll.told
        asked = dict.fromkeys(self._nodes.values(), roster)
        return self._pair(asked) if self._settings.protocol == "pairwise" else self._forward(asked)

    def _pair(self, asked: dict[int, Payload]) -> dict[int, Payload]:
        """Everybody's keys to everybody; where they are signed, before anybody trains for them."""
        if not self._settings.signed:
            return asked
        answers = self._exchange.query(SHARES, asked)
        self._roll.hear_of_strangers(self._nodes)
        self._require(len(answers), "know all others' keys")
        return {node: {} for node in answers}

    def take(self, node: int, numbers: ProtectedNumbers) -> None:
        """Add one client's masked numbers.

        Raises:
            ConfigurationError: they are not of the agreed shape, or not expected.
        """
        name = str(node)
        if name not in self._nodes or name in self._arrived:
            raise ConfigurationError("masked numbers of a client that this sum does not expect")
        if numbers.dtype != self._words.dtype or numbers.shape != self._total.shape:
            raise ConfigurationError(
                f"masked numbers have shape {numbers.shape} and type {numbers.dtype}; agreed are "
                f"{self._total.shape} and {self._words.dtype}"
            )
        self._total += numbers
        self._arrived[name] = None

    @property
    def arrived(self) -> int:
        """How many clients' numbers are in the sum."""
        return len(self._arrived)

    def require_openable(self) -> None:
        """Stop before anything is charged if the sum cannot be opened.

        Raises:
            SumNotOpened: too few clients' numbers arrived.
        """
        self._require(self.arrived, "sent masked numbers")
        self._require_holders({*self._arrived})

    def open(self) -> Integers:
        """The exact sum of the numbers that arrived.

        Raises:
            SumNotOpened: too few clients are left to unmask it, or their shares are wrong.
        """
        self.require_openable()
        if self._settings.protocol == "secagg":
            self._unmask(self._collect())
        return signed(self._total)

    def _forward(self, asked: dict[int, Payload]) -> dict[int, Payload]:
        """Shares from everybody to everybody; those that handed none out are gone."""
        everybody, found = {name: name for name in self._nodes}, self._settings.neighbourhood
        others = len(everybody) - 1 if found is None else found.neighbours
        for node, answer in self._exchange.answers(SHARES, asked):
            dealt = _Dealt.read(answer, dealer=str(node), everybody=everybody, others=others)
            if dealt is None:
                self._exchange.blame(node, "it handed out shares that do not fit")
            else:
                self._dealt[str(node)] = dealt
        self._roll.hear_of_strangers(self._nodes)
        self._leave_out_the_lonely()
        self._require(len(self._dealt), "handed out shares")
        self._nodes = {name: node for name, node in self._nodes.items() if name in self._dealt}
        for_all: Payload = {"present": [*self._dealt], **self._circles()}
        return {node: self._forwarded(name) | for_all for name, node in self._nodes.items()}

    def _circles(self) -> Payload:
        """Whom each drew, which those that sign compare."""
        if not self._settings.signed or self._settings.neighbourhood is None:
            return {}
        nodes = sorted(self._masks)
        return {"circles": [circle_bits(dealt.circle, nodes) for dealt in self._dealt.values()]}

    def _leave_out_the_lonely(self) -> None:
        """Go on without whose secrets too few could open, before anybody trains for them."""
        while lonely := self._without_holders({*self._dealt}):
            for name in lonely:
                self._exchange.refused[self._nodes[name]] = "too few that it drew are there"
                del self._dealt[name]

    def _without_holders(self, some: set[str]) -> list[str]:
        """Clients of whose secret fewer than enough of these hold shares."""
        fewest = self._settings.fewest_shares
        return [name for name, dealt in self._dealt.items() if len(dealt.circle & some) < fewest]

    def _forwarded(self, name: str) -> Payload:
        """What the others dealt to one; its boxes are kept no longer."""
        sources = {
            peer: dealt
            for peer, dealt in self._dealt.items()
            if peer != name and name in dealt.circle
        }
        return {
            "sources": list(sources),
            "sealed": [dealt.boxes.pop(name) for dealt in sources.values()],
            "commitments": [dealt.commitments[name] for dealt in sources.values()],
        }

    def _collect(self) -> dict[str, list[bytes]]:
        """Shares of each client's one secret that the sum needs, each as it was committed to."""
        asked: Payload = {"arrived": list(self._arrived), "dropped": self._dropped}
        if self._settings.signed:
            asked |= self._confirmed(asked)
        told = {self._nodes[name]: asked for name in self._arrived}
        found: dict[str, list[bytes]] = defaultdict(list)
        gave = 0
        for node, answer in self._exchange.answers(OPEN, told):
            shares = self._given(node, answer)
            gave += shares is not None
            for owner, share in (shares or {}).items():
                found[owner].append(share)
        if self._settings.neighbourhood is None:
            self._require(gave, "gave shares")
        few = [n for n in self._dealt if len(found[n]) < self._settings.fewest_shares]
        self._require_none(few)
        return found

    def _confirmed(self, asked: Payload) -> Payload:
        """Signatures of those whose numbers arrived, of the list of them.

        Raises:
            SumNotOpened: fewer than the threshold signed.
        """
        told = {self._nodes[name]: asked for name in self._arrived}
        answers = self._exchange.query(CONFIRM, told)
        signatures = {
            str(node): signature
            for node, answer in answers.items()
            if isinstance(signature := answer.get("signature"), bytes)
        }
        self._require(len(signatures), "signed whose numbers arrived")
        return {"signers": list(signatures), "signatures": list(signatures.values())}

    def _given(self, node: int, answer: ConfigRecord) -> Mapping[str, bytes] | None:
        """One client's shares, if all are what was dealt to it; else it is to blame."""
        try:
            shares = words_of(answer, "nodes", "shares")
        except ValueError:
            shares = {}
        name = str(node)
        owners = {owner for owner, dealt in self._dealt.items() if name in dealt.circle}
        if set(shares) == owners and all(
            self._is_dealt(owner, share, to=name) for owner, share in shares.items()
        ):
            return shares
        self._exchange.blame(node, "it gave shares that are not those that were dealt to it")
        return None

    def _is_dealt(self, owner: str, share: bytes, *, to: str) -> bool:
        kind = "seed" if owner in self._arrived else "key"
        about = "/".join([self._exchange.session, owner, to, kind])
        said = self._dealt[owner].commitments[to]
        half = said[:DIGEST_BYTES] if kind == "seed" else said[DIGEST_BYTES:]
        return commitment(share, about=about) == half

    def _secrets(self, found: Mapping[str, Sequence[bytes]]) -> dict[str, bytes]:
        """Of each client the seed if its numbers arrived, else the key.

        Raises:
            SumNotOpened: one dealt shares of something else; it is to blame.
        """
        secrets, to_blame = {}, []
        for owner, each in found.items():
            try:
                secrets[owner] = fitting(
                    each, threshold=self._settings.fewest_shares, fits=partial(self._is_said, owner)
                )
            except SharesDisagree:
                to_blame.append(owner)
                self._exchange.blame(
                    self._nodes[owner], "it dealt shares of a secret that is not what was said"
                )
        if to_blame:
            raise SumNotOpened(
                f"the sum is not opened: client {', '.join(to_blame)} dealt shares of a secret "
                "that is not what was said"
            )
        return secrets

    def _is_said(self, owner: str, secret: bytes) -> bool:
        if owner in self._arrived:
            return hashlib.sha256(secret).digest() == self._dealt[owner].seed_digest
        return public_key(secret) == self._masks[owner]

    def _unmask(self, found: Mapping[str, Sequence[bytes]]) -> None:
        session, words = self._exchange.session, self._words
        secrets = self._secrets(found)
        for name in self._arrived:
            own = self_key(seed=secrets[name], session=session, words=words)
            add_mask(self._total, own, taken=True)
        for gone in self._dropped:
            for peer in self._arrived:
                if not self._are_paired(gone, peer):
                    continue
                key = pair_key(
                    private=secrets[gone],
                    public=self._masks[peer],
                    session=session,
                    pair={gone, peer},
                    words=words,
                )
                # With the gone one's own numbers these would have cancelled.
                add_pair_mask(self._total, key, node=gone, peer=peer)

    @property
    def _dropped(self) -> list[str]:
        return [name for name in self._nodes if name not in self._arrived]

    def _are_paired(self, one: str, other: str) -> bool:
        """Whether their numbers hold a mask of theirs: one of the two drew the other."""
        return other in self._dealt[one].circle or one in self._dealt[other].circle

    def _require_holders(self, some: set[str]) -> None:
        if self._settings.protocol == "secagg":
            self._require_none(self._without_holders(some))

    def _require_none(self, lonely: Sequence[str]) -> None:
        if lonely:
            raise SumNotOpened(
                f"too few are left that hold shares of {len(lonely)} clients' secrets; the sum "
                "stays shut"
            )

    def _require(self, count: int, did: str) -> None:
        if count < self._settings.fewest:
            raise SumNotOpened(
                f"{count} clients {did}; a secure sum opens for {self._settings.fewest} or more"
            )


@dataclass(frozen=True, kw_only=True)
class _Dealt:
    """What one client handed out.

    Args:
        boxes: sealed shares, by who may open them, until they are forwarded.
        commitments: to the two shares of each of its circle, its own too.
        seed_digest: of the seed that they are shares of.
    """

    boxes: dict[str, bytes]
    commitments: Mapping[str, bytes]
    seed_digest: bytes

    @property
    def circle(self) -> Set[str]:
        """Who holds shares, the client itself among them."""
        return self.commitments.keys()

    @classmethod
    def read(
        cls, answer: ConfigRecord, *, dealer: str, everybody: Mapping[str, str], others: int
    ) -> _Dealt | None:
        """What a client's answer holds, or None if it does not fit.

        Args:
            answer: the client's.
            dealer: the client.
            everybody: who may be handed shares, each name once in memory.
            others: how many must be.
        """
        try:
            boxes = words_of(answer, "nodes", "sealed")
        except ValueError:
            return None
        said, digest = answer.get("commitments"), answer.get("seed-digest")
        if not boxes.keys() <= everybody.keys() - {dealer} or len(boxes) != others:
            return None
        if not isinstance(said, list):
            return None
        boxes = {everybody[peer]: box for peer, box in boxes.items()}
        circle = sorted([dealer, *boxes])
        sizes = {len(box) for box in boxes.values()} | {SEALED_BYTES}
        if len(sizes) > 1 or len(said) != len(circle) or not isinstance(digest, bytes):
            return None
        if any(not isinstance(each, bytes) or len(each) != 2 * DIGEST_BYTES for each in said):
            return None
        commitments = dict(zip(circle, cast(list[bytes], said), strict=True))
        return cls(boxes=boxes, commitments=commitments, seed_digest=digest)
