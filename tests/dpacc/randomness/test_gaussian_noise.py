"""The noise: Gaussian, keyed, and the same for everyone who knows the key."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import stats

from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import WORDS_PER_BLOCK, KeyedStream, RunSecret

SECRET = RunSecret.from_fixed_seed(11)


def test_the_noise_is_standard_normal() -> None:
    """A Kolmogorov–Smirnov test on 10⁶ draws sees N(0, 1); it would see a 0.5% wrong scale."""
    normals = standard_normals(secret=SECRET, step=0, count=1_000_000).astype(np.float64)
    assert stats.kstest(normals, "norm").pvalue > 1e-3
    assert abs((normals**2).mean() - 1) < 4 * np.sqrt(2 / 1e6)
    assert stats.kstest(normals * 1.005, "norm").pvalue < 0.05


def test_the_tails_are_there() -> None:
    """Draws beyond four standard deviations are as frequent as they should be."""
    count = 4_000_000
    normals = standard_normals(secret=SECRET, step=1, count=count)
    expected = 2 * stats.norm.sf(4) * count
    assert abs((np.abs(normals) > 4).sum() - expected) < 4 * np.sqrt(expected)


def test_element_i_depends_on_the_key_the_step_and_i_alone() -> None:
    """Drawing more, or across a chunk's edge, changes no element already drawn."""
    long = standard_normals(secret=SECRET, step=3, count=600_001)
    for count in (1, 2, 262_143, 262_145, 600_000):
        assert np.array_equal(standard_normals(secret=SECRET, step=3, count=count), long[:count])


def test_any_number_of_threads_draws_the_same_noise() -> None:
    """Cores share the chunks out among themselves, and no element depends on who drew it."""
    alone = standard_normals(secret=SECRET, step=3, count=1_000_001)
    assert np.array_equal(
        standard_normals(secret=SECRET, step=3, count=1_000_001, threads=5), alone
    )


def test_steps_and_secrets_give_independent_noise() -> None:
    """Noise of another step or another secret is uncorrelated with this one."""
    count = 100_000
    here = standard_normals(secret=SECRET, step=0, count=count)
    for there in (
        standard_normals(secret=SECRET, step=1, count=count),
        standard_normals(secret=RunSecret.from_fixed_seed(12), step=0, count=count),
        np.roll(here, 1),
    ):
        assert abs(np.corrcoef(here, there)[0, 1]) < 4 / np.sqrt(count)


def test_fresh_secrets_differ_and_stay_hidden() -> None:
    """Two runs share no secret, and neither printing nor pickling shows one."""
    first, second = RunSecret.generate(), RunSecret.generate()
    words = [s.stream(purpose="noise", step=0).words(start=0, count=4) for s in (first, second)]
    assert not np.array_equal(*words)
    assert repr(first) == "RunSecret(<hidden>)"
    with pytest.raises(TypeError, match="memory only"):
        pickle.dumps(first)


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A, F.5.5: from its counter on, our words turn its plaintext to its cipher."""
    key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
    counter = 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF
    plain = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = (
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = KeyedStream(bytes.fromhex(key))
    words = stream.words(start=counter * WORDS_PER_BLOCK, count=8)
    found = np.frombuffer(bytes.fromhex(plain), dtype="<u8") ^ words
    assert found.tobytes().hex() == cipher


def test_words_follow_one_another_from_block_zero() -> None:
    """Word i lies in block i/2 of counter 0 and up, wherever reading starts."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(32))
    zeros = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(32))
    assert KeyedStream(key).words(start=0, count=4).tobytes() == zeros
    assert KeyedStream(key).words(start=2, count=2).tobytes() == zeros[16:]
