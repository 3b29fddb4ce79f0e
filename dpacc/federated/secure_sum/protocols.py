"""One name, several protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dpacc.federated.secure_sum.exchange import Exchange
from dpacc.federated.secure_sum.fixed_point import WHOLE, Integers, Words
from dpacc.federated.secure_sum.messages import ClientSide, Payload, ProtectedNumbers
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum


class ServerSide(Protocol):
    """One sum, as a server conducts it, whatever the protocol."""

    def invite(self, nodes: Sequence[int], agreed: str) -> dict[int, Payload]:
        """Everything before training: what each client that is still there needs for it."""

    def take(self, node: int, numbers: ProtectedNumbers) -> None:
        """Add one client's protected numbers."""

    @property
    def arrived(self) -> int:
        """How many clients' numbers are in the sum."""

    def require_openable(self) -> None:
        """Stop before anything is charged if the sum cannot be opened."""

    def open(self) -> Integers:
        """The exact sum of the numbers that arrived."""


def client_side(name: ProtocolName) -> ClientSide:
    """How a client answers in the protocol of that name."""
    if name == "ckks":
        from dpacc.federated.secure_sum.ciphertexts.homomorphic import CKKS

        return CKKS
    from dpacc.federated.secure_sum.masking import PAIRWISE, SECAGG

    return SECAGG if name == "secagg" else PAIRWISE


def server_side(
    *, settings: SecureSum, exchange: Exchange, count: int, words: Words = WHOLE
) -> ServerSide:
    """A new sum of `count` numbers, which cross in these words where they are masked."""
    if settings.protocol == "ckks":
        from dpacc.federated.secure_sum.ciphertexts.encrypted import EncryptedSum

        return EncryptedSum(settings=settings, exchange=exchange, count=count)
    from dpacc.federated.secure_sum.unmasking import MaskedSum

    return MaskedSum(settings=settings, exchange=exchange, count=count, words=words)
