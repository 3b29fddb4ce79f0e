"""The server's part in a signed sum: who signed which keys, and who does not know whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from flwr.app import ConfigRecord

from dpacc.federated.secure_sum.exchange import Exchange
from dpacc.federated.secure_sum.messages import STRANGER, Payload
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import is_signed, said_of_keys


class SignedRoll:
    """Who offered keys of its own in one sum.

    Args:
        settings: of the sum.
        exchange: its queries.
    """

    def __init__(self, *, settings: SecureSum, exchange: Exchange) -> None:
        self._settings = settings
        self._exchange = exchange
        self._signed: dict[str, tuple[bytes, bytes]] = {}

    def take(self, node: int, offer: ConfigRecord, *, agreed: str) -> bool:
        """Whether whom it names signed these keys, and nobody else's; kept if so."""
        signer, signature = offer.get("signer"), offer.get("signature")
        said = said_of_keys(
            str(node),
            agreed,
            self._exchange.session,
            cast(bytes, offer["mask-key"]),
            cast(bytes, offer["seal-key"]),
        )
        if signer in [other for other, _ in self._signed.values()]:
            return False
        if not is_signed(signature, signer, "keys", *said):
            return False
        self._signed[str(node)] = cast(bytes, signer), cast(bytes, signature)
        return True

    @property
    def told(self) -> Payload:
        """What every client is told beside the keys, in their order."""
        return {
            "signers": [signer for signer, _ in self._signed.values()],
            "signatures": [signature for _, signature in self._signed.values()],
        }

    def hear_of_strangers(self, nodes: Mapping[str, int]) -> None:
        """Blame whom so many do not know that they can open a sum of their own.

        Fewer may lack a file, or say so: nobody is left out for good on their word. They are left
        out of this sum themselves, before anybody trains, and have said which key they need.

        Args:
            nodes: those that offered keys, by name.
        """
        said = [why.partition(":")[0] for why in self._exchange.refused.values()]
        for name, node in nodes.items():
            if said.count(f"{STRANGER}{name}") >= self._settings.fewest:
                self._exchange.blame(node, "others have no pinned key of it")
