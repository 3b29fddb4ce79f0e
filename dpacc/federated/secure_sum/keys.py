"""Keys of one sum: agreed by pairs, and stretched into masks.

Each sum has fresh X25519 keys. What two clients agree on goes through HKDF-SHA256, bound to the
sum, the pair and the purpose; a mask is the AES-256-CTR stream of such a key, read as words of w
bits, which are uniform modulo 2ʷ.
"""

from __future__ import annotations

import json
import os

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dpacc.federated.secure_sum.fixed_point import WHOLE, Residues, Words
from dpacc.federated.secure_sum.shamir import SharesDisagree
from dpacc.randomness.run_secret import KeyedStream

KEY_BYTES = 32
_NONCE_BYTES = 12
_WORD_BYTES = 8
_CHUNK = 1 << 18
"""Words of a mask at a time: whole blocks of the cipher, whatever their width."""
SEAL_BYTES = _NONCE_BYTES + 16
"""By how much a sealed box is longer than what lies in it: a nonce and AES-GCM's tag."""


def new_key() -> bytes:
    """A private key, or a seed, of 256 bits from the operating system."""
    return os.urandom(KEY_BYTES)


def public_key(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def is_public_key(key: object) -> bool:
    """Whether something secret can be agreed with it: 32 bytes, and no point of low order.

    >>> is_public_key(public_key(new_key())), is_public_key(bytes(32)), is_public_key(b"short")
    (True, False, False)
    """
    if not isinstance(key, bytes):
        return False
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


def agreed_key(*, private: bytes, public: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 of the X25519 agreement of two keys, for one purpose (RFC 5869, 7748).

    Raises:
        ValueError: `public` is no key, or one with which nothing secret can be agreed.
    """
    secret = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return derived(secret, purpose=purpose)


def derived(secret: bytes, *, purpose: str) -> bytes:
    """256 bits that depend on the secret and on what they are for."""
    info = f"dpacc secure sum/{purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def mask(key: bytes, *, count: int, words: Words = WHOLE) -> Residues:
    """`count` words, uniform modulo 2ʷ to whoever lacks the key."""
    total: Residues = np.zeros(count, dtype=words.dtype)
    add_mask(total, key)
    return total


def add_mask(total: Residues, key: bytes, *, taken: bool = False) -> None:
    """Add a key's mask to numbers modulo 2ʷ, in place and a part at a time.

    Args:
        total: the numbers, w being the bits of their type.
        key: of the mask.
        taken: take the mask away instead.
    """
    stream, size = KeyedStream(key), total.itemsize
    change = np.subtract if taken else np.add
    for start in range(0, len(total), _CHUNK):
        part = total[start : start + _CHUNK]
        drawn = stream.words(
            start=start * size // _WORD_BYTES, count=-(-len(part) * size // _WORD_BYTES)
        )
        change(part, drawn.view(total.dtype)[: len(part)], out=part)


def pair_key(
    *, private: bytes, public: bytes, session: str, pair: set[str], words: Words = WHOLE
) -> bytes:
    """The key of PRG(sᵢⱼ), the same for both of a pair that were told the same."""
    purpose = _purpose("pair mask", session, *sorted(pair), words=words)
    return agreed_key(private=private, public=public, purpose=purpose)


def self_key(*, seed: bytes, session: str, words: Words = WHOLE) -> bytes:
    """The key of PRG(bᵢ)."""
    return derived(seed, purpose=_purpose("self mask", session, words=words))


def _purpose(*parts: str, words: Words) -> str:
    """Codes are masked for their width and terms too, in JSON, which no other purpose begins."""
    if words == WHOLE:
        return "/".join(parts)
    return json.dumps([*parts, words.bits, words.terms])


def add_pair_mask(
    total: Residues, key: bytes, *, node: str, peer: str, taken: bool = False
) -> None:
    """Add to a node's numbers what they hold of a pair's mask; the peer's hold the opposite.

    Args:
        total: the numbers, changed in place.
        key: of the pair.
        node: whose they are.
        peer: the other one.
        taken: take it away instead.
    """
    add_mask(total, key, taken=taken == (node < peer))


def sealed(plain: bytes, *, key: bytes, about: str) -> bytes:
    """AES-256-GCM under a fresh nonce, bound to what it is about."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about.encode())


def unsealed(box: bytes, *, key: bytes, about: str) -> bytes:
    """What was sealed.

    Raises:
        SharesDisagree: it was changed, or is about something else.
    """
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], about.encode())
    except (InvalidTag, ValueError) as error:
        raise SharesDisagree("a sealed share was changed on its way") from error
