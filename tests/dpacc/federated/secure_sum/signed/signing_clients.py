"""Clients that sign, and a server that changes what it says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flwr.app import Message

from dpacc.federated.secure_sum.messages import CONFIRM, KEYS, OPEN, RECORD, SHARES
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from dpacc.federated.secure_sum.summing_client import SecureClient
from tests.dpacc.federated.secure_sum.sums import Federation, updates

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


def without(lost: str, keys: SigningKeys, folder: Path) -> SigningKeys:
    """The same client's keys, whose folder holds an older one of another's."""
    shutil.copytree(keys.pinned, folder)
    older = folder.with_name("older")
    older.mkdir()
    write_key(older, lost)
    shutil.copy(older / "keys" / f"{lost}.pub", folder)
    return SigningKeys(own=keys.own, pinned=folder)


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
