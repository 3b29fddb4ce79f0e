"""What passes between server and clients in one sum, and in which order.

A client keeps what it needs between two messages in Flower's context, which a SuperNode holds in
memory. Every sum has a session of its own; a message of another session, or out of order, is
refused, and each stage is answered once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord
from flwr.app.typing import ConfigRecordValues

from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum.fixed_point import WHOLE, Integers, Residues, Words
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys

RECORD = "secure-sum"
"""The name of the record that carries a stage, and of the client's state."""
KEYS, SHARES, TRAIN, OPEN = "secure_sum_keys", "secure_sum_shares", "train", "secure_sum_open"
"""Flower's actions: the three queries of a sum, and the training between them."""
CONFIRM = "secure_sum_confirm"
"""And in signed sums, before they are opened: whose numbers arrived."""

WRONG_SHARE = "wrong share of client "
"""How the refusal begins of a client that was dealt what its dealer did not commit to."""
STRANGER = "no pinned key of client "
"""How it begins of one that is told keys of somebody whom its owner does not know."""

Request: TypeAlias = Mapping[str, object]
Payload: TypeAlias = dict[str, ConfigRecordValues]
ProtectedNumbers: TypeAlias = Residues | npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Party:
    """One client's place in one sum.

    Args:
        node: its own number.
        settings: what it was told to expect, by its owner.
        state: what it remembers between messages; changed in place.
        words: in which its masked numbers leave.
        keys: in signed sums, its own signing key and whom it knows.
    """

    node: str
    settings: SecureSum
    state: ConfigRecord
    words: Words = WHOLE
    keys: SigningKeys | None = None

    @property
    def agreed(self) -> str:
        """What its owner agreed to for this sum."""
        return str(self.state.get("agreed", ""))

    @property
    def session(self) -> str:
        """The sum that it takes part in."""
        return str(self.state["session"])

    @property
    def nodes(self) -> list[str]:
        """All clients that offered keys, in order."""
        return cast(list[str], self.state["nodes"])

    @property
    def circle(self) -> list[str]:
        """Who holds shares of its secrets, itself among them."""
        return cast(list[str], self.state["circle"])

    @property
    def present(self) -> list[str]:
        """Whose shares were dealt when it was asked to train."""
        return cast(list[str], self.state["present"])

    def roster(self, keys: str = "mask-keys") -> dict[str, bytes]:
        """Every client's key, of this kind."""
        return dict(zip(self.nodes, cast(list[bytes], self.state[keys]), strict=True))

    def kept(self, name: str) -> bytes:
        """One of its own secrets."""
        return cast(bytes, self.state[name])

    def turn(self, stage: str, asked: Request) -> None:
        """Take this stage, which comes next in this session and never again.

        Raises:
            RequestRefused: it does not come next.
        """
        if self.state.get("next") != stage or self.state["session"] != asked.get("session"):
            raise RequestRefused(
                f"the server asks for {stage!r} of a secure sum out of its order; begin a new sum"
            )
        self.state["next"] = ""

    def then(self, stage: str) -> None:
        """Expect this stage."""
        self.state["next"] = stage

    def forget(self) -> None:
        """Drop every key and share."""
        self.state.clear()


Handler: TypeAlias = Callable[[Request, Party], Payload]


@dataclass(frozen=True, kw_only=True)
class ClientSide:
    """How a client answers in one protocol.

    Args:
        queries: the stages beside training.
        require: refuses a training request of which no protected sum could come.
        protect: from whole numbers to what leaves.
    """

    queries: Mapping[str, Handler]
    require: Callable[[Request, Party], None]
    protect: Callable[[Integers, Request, Party], ProtectedNumbers]


def session_of(run: str, number: int) -> str:
    """How the session of every sum of this run and round begins, which all keys are bound to."""
    return json.dumps([run, number]) + " "


_Item = TypeVar("_Item", str, bytes)


def text(asked: Request, name: str) -> str:
    """A field that must be a string."""
    value = asked.get(name)
    if not isinstance(value, str):
        raise RequestRefused(f"the server's secure sum lacks {name!r}")
    return value


def several(asked: Request, name: str, kind: type[_Item]) -> list[_Item]:
    """A field that must be a list of strings, or of bytes."""
    value = asked.get(name)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise RequestRefused(f"the server's secure sum lacks {name!r}")
    return list(value)


def paired(asked: Request, names: str, values: str) -> dict[str, bytes]:
    """Bytes by node, from two lists.

    Raises:
        RequestRefused: they are no such lists, or name a node twice.
    """
    nodes, each = several(asked, names, str), several(asked, values, bytes)
    if len(nodes) != len(each) or len(set(nodes)) != len(nodes):
        raise RequestRefused(f"the server's secure sum holds {names!r} that do not fit {values!r}")
    return dict(zip(nodes, each, strict=True))
