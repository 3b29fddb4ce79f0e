"""The global generators of Python, numpy and torch, lent a stream of their own for a while.

What a collate function draws from them depends on who is there, and their own state may be known:
a seed that everybody uses, a checkpoint that holds it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from dpacc.randomness.run_secret import KeyedStream

_WORDS = 624
_TORCH_WORDS_FROM = 24
"""torch's state of a processor's generator: three numbers of 8 bytes, then 624 words in 8 each."""
_UNUSED_STATE = torch.Generator().manual_seed(0).get_state()


@contextmanager
def global_generators(stream: KeyedStream) -> Iterator[None]:
    """While it lasts, the global generators start from `stream`; then they go on where they were.

    Each Mersenne Twister gets all 624 words of its state, for torch would make but 32 bits of a
    seed. What is drawn leaves no trace in the generators that others use.
    """
    words = stream.words(start=0, count=3 * _WORDS) >> np.uint64(32)
    of_python, of_numpy, of_torch = words.reshape(3, _WORDS)
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    uses_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if uses_gpu else []
    with torch.random.fork_rng(devices=devices, enabled=bool(devices)):
        try:
            random.setstate((3, (*of_python.tolist(), _WORDS), None))
            np.random.set_state(("MT19937", of_numpy.astype(np.uint32), _WORDS, 0, 0.0))
            torch.set_rng_state(_state_of_torch(of_torch))
            if devices:
                torch.cuda.manual_seed_all(int(stream.words(start=4 * _WORDS, count=2)[0] >> 1))
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])


def _state_of_torch(words: npt.NDArray[np.uint64]) -> torch.Tensor:
    state = _UNUSED_STATE.clone()
    end = _TORCH_WORDS_FROM + 8 * _WORDS
    state[_TORCH_WORDS_FROM:end] = torch.from_numpy(words.view(np.uint8).copy())
    return state
