"""Who is who in a sum, by keys that each organisation keeps for years and others have pinned.

A client signs the fresh keys that it offers, for this sum, run and round, and everyone checks that
against the public keys in a folder of its own: whoever passes keys on cannot put others in their
place, nor invent a client. Before anything is opened all sign whose numbers arrived, of which
sum; only who sees threshold signatures of one list gives a share, and as 2t > n + colluding there
are not two such lists (the consistency check of Bonawitz et al. 2017, doi 10.1145/3133956.3133982).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from dpacc.errors import ConfigurationError

_HASH = hashes.SHA384()
_LONGEST = 1024
"""Bytes of a key or signature that are looked at."""

PrivateKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, kw_only=True)
class SigningKeys:
    """One client's own key, and those of all that it will ever be in a sum with.

    Args:
        own: a private key of OpenSSH's, `ssh-keygen -t ecdsa -b 384` or `-t ed25519`, without a
            password; a node's own, whose public half the server has registered, will do.
        pinned: a folder of public keys, `*.pub`, its own among them. Whoever fills it decides
            whom this client trusts: get each from its owner, never from the federation's server.

    Raises:
        ConfigurationError: a file is missing or holds no such key, a key is there twice, or the
            own one is not there.
    """

    own: Path
    pinned: Path
    _private: PrivateKey = field(init=False, repr=False, compare=False)
    _known: Mapping[bytes, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_private", _private_key(Path(self.own)))
        known: dict[bytes, str] = {}
        for path in sorted(Path(self.pinned).glob("*.pub")):
            key = _public_key(path)
            if key in known:
                raise ConfigurationError(f"{path} holds the key of {known[key]}; pin each once")
            known[key] = path.stem
        if self.public not in known:
            raise ConfigurationError(
                f"{self.pinned} holds {len(known)} public keys and not that of {self.own}; it "
                "takes a file NAME.pub of every client, this one too"
            )
        object.__setattr__(self, "_known", known)

    @property
    def public(self) -> bytes:
        """The own public key, in DER."""
        return _written(self._private.public_key())

    @property
    def count(self) -> int:
        """How many clients are known."""
        return len(self._known)

    def sign(self, purpose: str, *parts: str) -> bytes:
        """A signature of what is said."""
        said = _said(purpose, parts)
        if isinstance(self._private, Ed25519PrivateKey):
            return self._private.sign(said)
        return self._private.sign(said, ECDSA(_HASH))

    def knows(self, key: bytes) -> bool:
        """Whether that public key is pinned."""
        return key in self._known


def said_of_keys(node: str, agreed: str, session: str, mask_key: bytes, seal: bytes) -> list[str]:
    """What a client signs of the keys that it offers; the session names run and round."""
    return [session, agreed, node, mask_key.hex(), seal.hex()]


def is_signed(signature: object, key: object, purpose: str, *parts: str) -> bool:
    """Whether the holder of that public key, in DER, signed this; either may be anything."""
    if not isinstance(signature, bytes) or not isinstance(key, bytes):
        return False
    if max(len(signature), len(key)) > _LONGEST:
        return False
    try:
        public = load_der_public_key(key)
        if isinstance(public, Ed25519PublicKey):
            public.verify(signature, _said(purpose, parts))
        elif isinstance(public, EllipticCurvePublicKey):
            public.verify(signature, _said(purpose, parts), ECDSA(_HASH))
        else:
            return False
        return _written(public) == key
    except (InvalidSignature, ValueError, TypeError):
        return False
    except Exception:  # of a curve or form that the library does not know; others chose the bytes
        return False


def list_digest(*lists: Iterable[str]) -> str:
    """SHA-256 of lists of names, in hexadecimal; their order does not matter, nor hide a name."""
    ordered = json.dumps([sorted(each) for each in lists])
    return hashlib.sha256(ordered.encode()).hexdigest()


def _said(purpose: str, parts: Sequence[str]) -> bytes:
    return json.dumps(["dpacc secure sum", purpose, *parts]).encode()


def _private_key(path: Path) -> PrivateKey:
    try:
        found = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a private key without a password: {_why(error)}; make one "
            "with ssh-keygen -t ecdsa -b 384"
        ) from error
    if not isinstance(found, EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds another kind of key; take ecdsa or ed25519")
    return found


def _public_key(path: Path) -> bytes:
    try:
        found = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a public key: {_why(error)}; it is the .pub of ssh-keygen"
        ) from error
    if not isinstance(found, EllipticCurvePublicKey | Ed25519PublicKey):
        raise ConfigurationError(f"{path} holds another kind of key; take ecdsa or ed25519")
    return _written(found)


def _why(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, OSError) else "its form is not OpenSSH's"


def _written(key: EllipticCurvePublicKey | Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
