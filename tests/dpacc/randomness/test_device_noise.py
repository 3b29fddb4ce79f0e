"""Noise that is made on a device is the processor's, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dpacc.randomness import device_noise
from dpacc.randomness.device_noise import box_muller, normals_on
from dpacc.randomness.gaussian_noise import normals_at, standard_normals
from dpacc.randomness.run_secret import KeyedStream, RunSecret
from tests.dpacc.layers.kernels.devices import DEVICE

SECRET = RunSecret.from_fixed_seed(11)


def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of the processor's AES in place of the kernel's, whose interpreter is slow."""

    def words_on(device: torch.device, *, keys: torch.Tensor, **at: int) -> torch.Tensor:
        stream = KeyedStream(keys.numpy().tobytes())
        words = stream.words(start=2 * at["first_block"], count=2 * at["blocks"])
        return torch.from_numpy(words.view(np.int64).copy()).to(device)

    def unexpanded(key: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.frombuffer(key, dtype=np.uint8).copy()

    monkeypatch.setattr(device_noise, "words_on", words_on)
    monkeypatch.setattr(device_noise, "sliced_keys", unexpanded)


def test_box_muller_is_the_processors_up_to_its_last_digits() -> None:
    """Far closer than what puts a number in doubt, for all words and the extreme ones."""
    stream = SECRET.stream(purpose="noise", step=3)
    words = stream.words(start=0, count=200_000)
    found = box_muller(torch.from_numpy(words.view(np.int64).copy()).to(DEVICE)).cpu().numpy()
    wanted = normals_at(stream, 0, 200_000)
    assert np.abs(found / wanted - 1).max() < device_noise._DOUBT / 4
    extremes = torch.tensor([[0, 0], [-1, 0], [0, -1]]).flatten().to(DEVICE)
    assert box_muller(extremes).cpu()[0::2].tolist() == pytest.approx([8.652, 0, 8.652], abs=1e-3)


def test_the_noise_is_the_processors_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the edges of chunks, and for an odd count; another step's is another."""
    if DEVICE.type == "cpu":
        on_the_processor(monkeypatch)
    monkeypatch.setattr(device_noise, "_CHUNK", 1000)
    found, other = (normals_on(DEVICE, secret=SECRET, step=t, count=14001).cpu() for t in (3, 4))
    assert np.array_equal(found.numpy(), standard_normals(secret=SECRET, step=3, count=14001))
    assert (found == other).sum() < 10


def test_a_number_in_doubt_is_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device's library has wrong by less than the doubt becomes right, in its place."""
    stream = SECRET.stream(purpose="noise", step=3)
    wanted = torch.from_numpy(standard_normals(secret=SECRET, step=3, count=306)[6:])
    wrong = torch.from_numpy(normals_at(stream, 6, 300)) * (1 + 1e-5)
    monkeypatch.setattr(device_noise, "_DOUBT", 1e-4)
    settled = wrong.float()
    assert (settled != wanted).all()
    device_noise._settle(settled, wrong, stream, start=6)
    assert torch.equal(settled, wanted)
    monkeypatch.setattr(device_noise, "_DOUBT", 2.0**-48)
    device_noise._settle(unchanged := wrong.float(), wrong, stream, start=6)
    assert torch.equal(unchanged, wrong.float())
