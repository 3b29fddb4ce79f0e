"""Keyed randomness: numbers that every rank can compute and nobody else can predict.

Sampling and noise both draw from AES-256 in counter mode, keyed by a secret that lives in
memory only. A counter-based generator has no state to carry: any word of any step can be
computed by any rank, so the result does not depend on the world size or on the order of work.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECRET_BYTES = 32
_BLOCK_BYTES = 16
WORDS_PER_BLOCK = 2


class RunSecret:
    """256 bits that key every random draw of a run; never written, printed or pickled to disk.

    >>> RunSecret.generate()
    RunSecret(<hidden>)
    >>> RunSecret.from_fixed_seed(7)
    RunSecret(fixed_seed=7)
    """

    __slots__ = ("_key", "fixed_seed")

    def __init__(self, key: bytes, *, fixed_seed: int | None = None) -> None:
        self._key = key
        self.fixed_seed = fixed_seed

    @classmethod
    def generate(cls) -> RunSecret:
        """A fresh secret from the operating system's generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def from_fixed_seed(cls, seed: int) -> RunSecret:
        """A predictable secret, for tests: a run that uses it is not private."""
        return cls(hashlib.sha256(f"dpacc fixed seed {seed}".encode()).digest(), fixed_seed=seed)

    def stream(self, *, purpose: str, step: int) -> KeyedStream:
        """The random words of one purpose ("sampling", "noise") at one logical step."""
        label = f"dpacc/{purpose}/{step}".encode()
        return KeyedStream(hmac.digest(self._key, label, "sha256"))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RunSecret lives in memory only; it cannot be pickled or saved")

    def __repr__(self) -> str:
        hidden = self.fixed_seed is None
        return "RunSecret(<hidden>)" if hidden else f"RunSecret(fixed_seed={self.fixed_seed})"


class KeyedStream:
    """An endless sequence of uniform 64-bit words with random access.

    Attributes:
        key: of AES-256, of these words alone.
    """

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key

    def words(self, *, start: int, count: int) -> npt.NDArray[np.uint64]:
        """Words start … start+count−1; `start` must be even (a cipher block is two words).

        >>> stream = RunSecret.from_fixed_seed(0).stream(purpose="noise", step=3)
        >>> whole = stream.words(start=0, count=10)
        >>> bool((stream.words(start=4, count=6) == whole[4:]).all())
        True
        """
        first_block, remainder = divmod(start, WORDS_PER_BLOCK)
        if remainder:
            raise ValueError(f"start={start} must be a multiple of {WORDS_PER_BLOCK}")
        counter = first_block.to_bytes(_BLOCK_BYTES, "big")
        encryptor = Cipher(algorithms.AES256(self.key), modes.CTR(counter)).encryptor()
        return np.frombuffer(encryptor.update(bytes(8 * count)), dtype="<u8")


def draw_in_chunks(draw: Callable[[int], None], chunks: Iterable[int], *, threads: int) -> None:
    """Call `draw` for every chunk, on that many threads; chunks need each other in no way."""
    if threads == 1:
        for chunk in chunks:
            draw(chunk)
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for _ in pool.map(draw, chunks):  # which passes errors on
            pass
