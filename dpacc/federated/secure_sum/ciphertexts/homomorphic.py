"""A client's side of "ckks": numbers are added under encryption, and one client opens the sum.

The key-holder makes a CKKS key for this sum (arXiv 1610.02391, by TenSEAL). All encrypt with its
public half, the server adds what it cannot read, and the key-holder decrypts one total. What it
answers is rounded to the whole numbers that were added, so the sum is exact, and CKKS's own error,
from which the key could be worked out (doi 10.1007/978-3-030-77870-5_23), never leaves.

Beside the numbers travels a count of clients, so that the key-holder opens no sum of too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum.fixed_point import Integers
from dpacc.federated.secure_sum.messages import (
    KEYS,
    OPEN,
    SHARES,
    TRAIN,
    ClientSide,
    Party,
    Payload,
    ProtectedNumbers,
    Request,
    several,
)

_DEGREE = 4096
_SLOTS = _DEGREE // 2
_MODULUS_BITS = (54, 55)  # 109 in all: 128-bit security at this degree
_SCALE = 2.0**20
_LENGTH_BYTES = 4


def library() -> Any:
    """TenSEAL.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import tenseal
    except ImportError as error:
        raise ConfigurationError(
            "protocol='ckks' needs TenSEAL: pip install 'dpacc[homomorphic]', or take "
            "protocol='secagg'"
        ) from error
    return tenseal


def encrypted(whole: Integers, *, public: bytes) -> list[bytes]:
    """Ciphertexts of the numbers and of a one, so many to a ciphertext as it has slots."""
    tenseal = library()
    context = tenseal.context_from(public)
    numbers = np.append(whole, 1).astype(np.float64)
    return [
        tenseal.ckks_vector(context, numbers[start : start + _SLOTS]).serialize()
        for start in range(0, len(numbers), _SLOTS)
    ]


class EncryptedTotal:
    """A sum of ciphertexts, by whoever cannot read them.

    Args:
        public: the key-holder's.
    """

    def __init__(self, *, public: bytes) -> None:
        self._context = library().context_from(public)
        self._vectors: list[Any] = []

    def add(self, boxes: Sequence[bytes]) -> None:
        """Add one client's ciphertexts, all or none.

        Raises:
            ValueError: they are not as many as others sent, or none at all.
        """
        read = [library().ckks_vector_from(self._context, box) for box in boxes]
        if not self._vectors:
            self._vectors = read
            return
        pairs = zip(self._vectors, read, strict=True)
        self._vectors = [total + each for total, each in pairs]

    def boxes(self) -> list[bytes]:
        """Ciphertexts of the sums."""
        return [vector.serialize() for vector in self._vectors]


def packed(boxes: Sequence[bytes]) -> ProtectedNumbers:
    """Ciphertexts as one array, each after its length."""
    data = b"".join(len(box).to_bytes(_LENGTH_BYTES, "little") + box for box in boxes)
    return np.frombuffer(data, dtype=np.uint8)


def unpacked(numbers: ProtectedNumbers) -> list[bytes]:
    """The ciphertexts of which `packed` made an array.

    >>> unpacked(packed([b"one", b"three"]))
    [b'one', b'three']
    """
    data, boxes, start = numbers.tobytes(), [], 0
    while start < len(data):
        first = start + _LENGTH_BYTES
        start = first + int.from_bytes(data[start:first], "little")
        boxes.append(data[first:start])
    return boxes


def take_part(asked: Request, party: Party) -> Payload:
    """Say that this client is there; it may be chosen to hold the key."""
    del asked
    library()
    party.then(SHARES)
    return {}


def make_key(asked: Request, party: Party) -> Payload:
    """As the key-holder: a fresh key, of which only the public half leaves."""
    party.turn(SHARES, asked)
    tenseal = library()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=_DEGREE,
        coeff_mod_bit_sizes=list(_MODULUS_BITS),
    )
    context.global_scale = _SCALE
    party.state["secret-context"] = _bytes_of(context, secret=True)
    party.then(TRAIN)
    return {"public": _bytes_of(context, secret=False)}


def take_public_key(asked: Request, party: Party) -> None:
    """Keep the key under which this client's numbers will leave.

    Raises:
        RequestRefused: the server sent none.
    """
    if "secret-context" not in party.state:
        party.then(TRAIN)
    party.turn(TRAIN, asked)
    public = asked.get("public")
    if not isinstance(public, bytes) or library().context_from(public).is_private():
        raise RequestRefused("the server's secure sum lacks a public key")
    party.state["public"] = public


def protected(whole: Integers, asked: Request, party: Party) -> ProtectedNumbers:
    """The numbers, encrypted."""
    del asked
    boxes = encrypted(whole, public=cast(bytes, party.state["public"]))
    if "secret-context" in party.state:
        party.then(OPEN)
    else:
        party.forget()
    return packed(boxes)


def open_sum(asked: Request, party: Party) -> Payload:
    """As the key-holder: decrypt one total, once, and forget the key.

    Raises:
        RequestRefused: it is no sum of whole numbers, or one of too few clients.
    """
    party.turn(OPEN, asked)
    context = library().context_from(cast(bytes, party.state["secret-context"]))
    party.forget()
    boxes = several(asked, "ciphertexts", bytes)
    exact = np.concatenate([library().ckks_vector_from(context, b).decrypt() for b in boxes])
    whole = np.rint(exact)
    if np.abs(exact - whole).max() > 0.25:
        raise RequestRefused("what the server sent decrypts to no sum of whole numbers")
    if whole[-1] < party.settings.fewest:
        raise RequestRefused(
            f"the server's sum is one of {whole[-1]:.0f} clients; it opens for "
            f"{party.settings.fewest} or more"
        )
    return {"numbers": whole[:-1].astype("<i8").tobytes(), "clients": str(int(whole[-1]))}


def _bytes_of(context: Any, *, secret: bool) -> bytes:
    return cast(
        bytes,
        context.serialize(
            save_public_key=True,
            save_secret_key=secret,
            save_galois_keys=False,
            save_relin_keys=False,
        ),
    )


CKKS = ClientSide(
    queries={KEYS: take_part, SHARES: make_key, OPEN: open_sum},
    require=take_public_key,
    protect=protected,
)
