"""Shares of a secret, of which t yield it and fewer say nothing (Shamir 1979).

The secret is the value at 0 of a random polynomial of degree t − 1 over the integers modulo the
prime 2⁵²¹ − 1; share i is its value at i. Given any t − 1 shares, every secret fits exactly one
polynomial, all equally likely.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, islice

from dpacc.errors import DpaccError

PRIME = (1 << 521) - 1
SECRET_BYTES = 32
_INDEX_BYTES = 2
_VALUE_BYTES = 66
SHARE_BYTES = _INDEX_BYTES + _VALUE_BYTES
_MOST_SUBSETS = 100


class SharesDisagree(DpaccError):  # noqa: N818 - reads as what happened
    """Shares do not combine to the secret that was committed to."""


def shares(secret: bytes, *, threshold: int, count: int) -> list[bytes]:
    """`count` shares of 256 bits, of which any `threshold` combine to them.

    >>> some = shares(bytes(range(32)), threshold=3, count=5)
    >>> combined(some[1:4], threshold=3) == bytes(range(32))
    True
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise ValueError(f"threshold={threshold} of count={count} for {len(secret)} bytes")
    value = int.from_bytes(secret, "big")
    polynomial = [value, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_share(at, _evaluated(polynomial, at)) for at in range(1, count + 1)]


def combined(found: Sequence[bytes], *, threshold: int) -> bytes:
    """The secret of which these are shares; whoever calls compares it with what was committed.

    Raises:
        SharesDisagree: they are no `threshold` different shares of one secret.
    """
    points = dict(_read(share) for share in found[:threshold])
    if len(points) != threshold:
        raise SharesDisagree(f"{len(points)} different shares, where {threshold} are needed")
    weights = _weights(tuple(points))
    value = sum(w * y for w, y in zip(weights, points.values(), strict=True)) % PRIME
    if value >> (8 * SECRET_BYTES):
        raise SharesDisagree("the shares are not of one secret")
    return value.to_bytes(SECRET_BYTES, "big")


def fitting(found: Sequence[bytes], *, threshold: int, fits: Callable[[bytes], bool]) -> bytes:
    """The secret that fits, from whichever of the shares are its own.

    Raises:
        SharesDisagree: the first hundred subsets of `threshold` combine to none that does.

    >>> some = shares(bytes(32), threshold=2, count=3)
    >>> spoiled = [some[0][:-1] + b"!", *some[1:]]
    >>> fitting(spoiled, threshold=2, fits=lambda secret: secret == bytes(32)) == bytes(32)
    True
    """
    for some in islice(combinations(found, threshold), _MOST_SUBSETS):
        try:
            secret = combined(some, threshold=threshold)
        except SharesDisagree:
            continue
        if fits(secret):
            return secret
    raise SharesDisagree("the shares are not of the secret that was committed to")


def commitment(share: bytes, *, about: str) -> bytes:
    """SHA-256 of a share and of what it is: to be compared with, and of no use to find it.

    A share is uniform over 521 bits to whoever holds fewer than the threshold.
    """
    return hashlib.sha256(about.encode() + b"\0" + share).digest()


def committed(box: bytes, *, session: str, source: str, destination: str) -> bytes:
    """Commitments to both shares that one client deals to another, one after the other."""
    about = "/".join([session, source, destination])
    seed, key = box[:SHARE_BYTES], box[SHARE_BYTES:]
    return commitment(seed, about=f"{about}/seed") + commitment(key, about=f"{about}/key")


def _evaluated(polynomial: Sequence[int], at: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * at + coefficient) % PRIME
    return value


@lru_cache(maxsize=8)
def _weights(places: tuple[int, ...]) -> list[int]:
    """Lagrange's weights, with which values at these places add up to that at 0."""
    weights = []
    for here in places:
        above = below = 1
        for there in places:
            if there != here:
                above = above * there % PRIME
                below = below * (there - here) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def _share(at: int, value: int) -> bytes:
    return at.to_bytes(_INDEX_BYTES, "big") + value.to_bytes(_VALUE_BYTES, "big")


def _read(share: bytes) -> tuple[int, int]:
    at = int.from_bytes(share[:_INDEX_BYTES], "big")
    if len(share) != SHARE_BYTES or at == 0:
        raise SharesDisagree("what a client gave is no share")
    return at, int.from_bytes(share[_INDEX_BYTES:], "big") % PRIME
