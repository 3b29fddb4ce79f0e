"""The server's side of "secagg" and "pairwise": who is there, the masked sum, and its opening."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ConfigRecord

from dpacc.errors import ConfigurationError
from dpacc.federated.secure_sum.exchange import Exchange, SumNotOpened, words_of
from dpacc.federated.secure_sum.fixed_point import WHOLE, Integers, Residues, Words, signed
from dpacc.federated.secure_sum.keys import public_key
from dpacc.federated.secure_sum.masking import add_pair_mask, pair_mask, self_mask
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Payload, ProtectedNumbers
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shamir import SharesDisagree, combined


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
        self._digests: dict[str, bytes] = {}
        self._nodes: dict[str, int] = {}
        self._arrived: list[str] = []
        self._total: Residues = np.zeros(count, dtype=words.dtype)

    def invite(self, nodes: Sequence[int], agreed: str) -> dict[int, Payload]:
        """Everything before training: what each client that is still there needs for it.

        Raises:
            SumNotOpened: fewer than the threshold are there.
        """
        offers = self._exchange.query(KEYS, {node: {"agreed": agreed} for node in nodes})
        for node, offer in offers.items():
            mask_key, seal_key = offer.get("mask-key"), offer.get("seal-key")
            if isinstance(mask_key, bytes) and isinstance(seal_key, bytes):
                name = str(node)
                self._nodes[name], self._masks[name], self._seals[name] = node, mask_key, seal_key
        self._require(len(self._masks), "offered keys")
        roster: Payload = {
            "nodes": list(self._masks),
            "mask-keys": list(self._masks.values()),
            "seal-keys": list(self._seals.values()),
        }
        asked = dict.fromkeys(self._nodes.values(), roster)
        return asked if self._settings.protocol == "pairwise" else self._forward(asked)

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
        self._arrived.append(name)

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
        boxes: dict[str, dict[str, bytes]] = {}
        for node, answer in self._exchange.query(SHARES, asked).items():
            try:
                found = words_of(answer, "nodes", "sealed")
            except ValueError:
                continue
            digest = answer.get("seed-digest")
            if set(found) == set(self._nodes) - {str(node)} and isinstance(digest, bytes):
                boxes[str(node)], self._digests[str(node)] = found, digest
        self._require(len(boxes), "handed out shares")
        self._nodes = {name: node for name, node in self._nodes.items() if name in boxes}
        return {
            node: {
                "sources": [peer for peer in boxes if peer != name],
                "sealed": [boxes[peer][name] for peer in boxes if peer != name],
            }
            for name, node in self._nodes.items()
        }

    def _collect(self) -> dict[str, list[bytes]]:
        """Shares of each client's one secret that the sum needs."""
        asked: Payload = {"arrived": list(self._arrived), "dropped": self._dropped}
        answers = self._exchange.query(OPEN, {self._nodes[name]: asked for name in self._arrived})
        found: dict[str, list[bytes]] = defaultdict(list)
        given = [shares for answer in answers.values() if (shares := self._given(answer))]
        self._require(len(given), "gave shares")
        for shares in given:
            for owner, share in shares.items():
                found[owner].append(share)
        return found

    def _given(self, answer: ConfigRecord) -> Mapping[str, bytes]:
        try:
            shares = words_of(answer, "nodes", "shares")
        except ValueError:
            return {}
        return shares if set(shares) == set(self._nodes) else {}

    def _unmask(self, found: Mapping[str, Sequence[bytes]]) -> None:
        session, count, words = self._exchange.session, len(self._total), self._words
        try:
            secrets = {
                owner: combined(each, threshold=self._settings.fewest)
                for owner, each in found.items()
            }
        except SharesDisagree as error:
            raise SumNotOpened(f"the sum is not opened: {error}") from error
        for name in self._arrived:
            if hashlib.sha256(secrets[name]).digest() != self._digests[name]:
                raise SumNotOpened("the sum is not opened: shares of a seed are not what was said")
            self._total -= self_mask(seed=secrets[name], session=session, count=count, words=words)
        for gone in self._dropped:
            if public_key(secrets[gone]) != self._masks[gone]:
                raise SumNotOpened("the sum is not opened: shares of a key are not what was said")
            for peer in self._arrived:
                drawn = pair_mask(
                    private=secrets[gone],
                    public=self._masks[peer],
                    session=session,
                    pair={gone, peer},
                    count=count,
                    words=words,
                )
                # With the gone one's own numbers these would have cancelled.
                add_pair_mask(self._total, drawn, node=gone, peer=peer)

    @property
    def _dropped(self) -> list[str]:
        return [name for name in self._nodes if name not in self._arrived]

    def _require(self, count: int, did: str) -> None:
        if count < self._settings.fewest:
            raise SumNotOpened(
                f"{count} clients {did}; a secure sum opens for {self._settings.fewest} or more"
            )
