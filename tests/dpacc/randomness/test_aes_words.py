"""The kernel's words are AES-256's in counter mode, by the standard's own examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dpacc.randomness.aes_words import _substituted_word, sliced_keys, words_on
from tests.dpacc.layers.kernels.devices import DEVICE


def test_subbytes_is_the_standards() -> None:
    """FIPS 197, figure 7: a permutation of all bytes without a fixed point, with these values."""
    values = [_substituted_word(byte) & 0xFF for byte in range(256)]
    assert sorted(values) == [*range(256)]
    assert all(value not in (byte, byte ^ 0xFF) for byte, value in enumerate(values))
    assert [values[byte] for byte in (0x00, 0x01, 0x53, 0xFF)] == [0x63, 0x7C, 0xED, 0x16]
    assert _substituted_word(0xFF530100) == 0x16ED7C63


def test_the_expanded_key_is_the_standards() -> None:
    """FIPS 197, appendix A.3: its words 8, 12 and 59, put together again from their bits."""
    key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
    planes = sliced_keys(bytes.fromhex(key)).view(np.uint32)
    planes[1:] ^= np.array([(0x63 >> bit & 1) * 0xFFFFFFFF for bit in range(8)], dtype=np.uint32)

    def word(place: int, block: int) -> str:
        bits = planes[place // 4] >> np.uint32(2 * (place % 4) + block) & np.uint32(0x01010101)
        number = int((bits << np.arange(8, dtype=np.uint32)).sum())
        return number.to_bytes(4, "little").hex()

    for block in range(2):
        assert [word(place, block) for place in (0, 8, 12, 59)] == [
            "603deb10",
            "9ba35411",
            "a8b09c1a",
            "706c631e",
        ]


@pytest.mark.parametrize(
    ("key", "ciphertext"),
    [
        (
            "c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558",
            "46f2fb342d6f0ab477476fc501242c5f",
        )
    ],
)
def test_the_first_block_is_nists(key: str, ciphertext: str) -> None:
    """KeySbox of the AES validation suite (AESAVS, appendix C.2): a block of zeros, under a key
    that sends all kinds of bytes through SubBytes; no block after it is like another."""
    keys = torch.from_numpy(sliced_keys(bytes.fromhex(key))).to(DEVICE)
    blocks = words_on(DEVICE, keys=keys, first_block=0, blocks=301).cpu().numpy().reshape(-1, 2)
    assert blocks[0].tobytes().hex() == ciphertext
    counter = Cipher(algorithms.AES256(bytes.fromhex(key)), modes.CTR(bytes(16))).encryptor()
    assert blocks.tobytes() == counter.update(bytes(16 * 301))
    assert len(np.unique(blocks)) == blocks.size


def test_no_counter_beyond_what_is_counted() -> None:
    """No blocks are no words; a counter that would not fit is refused."""
    keys = torch.from_numpy(sliced_keys(bytes(32))).to(DEVICE)
    assert words_on(DEVICE, keys=keys, first_block=0, blocks=0).shape == (0,)
    for first, blocks in ((-2, 1), (2**62, 1)):
        with pytest.raises(ValueError, match="must end before"):
            words_on(DEVICE, keys=keys, first_block=first, blocks=blocks)
