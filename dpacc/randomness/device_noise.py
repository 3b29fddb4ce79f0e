"""The same Gaussian noise as the processor's, bit for bit, made where it is needed.

The words are the processor's exactly, for AES has no rounding. Box–Muller is repeated in float64,
in which two libraries' logarithms and cosines may differ in the last bits; where these could decide
how the fp32 number is rounded, one number in some millions, the processor is asked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpacc.randomness.aes_words import sliced_keys, words_on
from dpacc.randomness.gaussian_noise import UNIT, normals_at
from dpacc.randomness.run_secret import WORDS_PER_BLOCK, KeyedStream, RunSecret

_CHUNK = 1 << 22
_DOUBT = 2.0**-48
"""Of a number: libraries err by a few units of 2⁻⁵³."""


def normals_on(device: torch.device, *, secret: RunSecret, step: int, count: int) -> Tensor:
    """What `standard_normals` gives, [count] fp32, on a device whose kernels are Triton's.

    The step's key, which is worth nothing in any other, is on the device meanwhile.

    Args:
        device: where the numbers are wanted.
        secret: keys the draws.
        step: the logical step.
        count: how many.
    """
    stream = secret.stream(purpose="noise", step=step)
    keys = torch.from_numpy(sliced_keys(stream.key)).to(device)
    normals = torch.empty(count + count % 2, dtype=torch.float32, device=device)
    for start in range(0, len(normals), _CHUNK):
        chunk = normals[start : start + _CHUNK]
        words = words_on(
            device,
            keys=keys,
            first_block=start // WORDS_PER_BLOCK,
            blocks=len(chunk) // WORDS_PER_BLOCK,
        )
        exact = box_muller(words)
        chunk.copy_(exact)
        _settle(chunk, exact, stream, start)
    keys.zero_()
    return normals[:count]


def box_muller(words: Tensor) -> Tensor:
    """Pairs √(−2 ln u)·(cos 2πv, sin 2πv) of pairs of words, float64, as the processor has them."""
    # A shift of signed numbers would keep their sign.
    uniforms = ((words >> 11 & (1 << 53) - 1).double() + 0.5) * UNIT
    radius = (-2.0 * uniforms[0::2].log()).sqrt()
    angle = (2.0 * math.pi) * uniforms[1::2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1).flatten()


def _settle(normals: Tensor, exact: Tensor, stream: KeyedStream, start: int) -> None:
    """Ask the processor for the numbers whose rounding to fp32 is in doubt."""
    doubtful = (exact * (1 - _DOUBT)).float() != (exact * (1 + _DOUBT)).float()
    for place in doubtful.nonzero().flatten().tolist():
        pair = place - place % 2
        normals[place] = float(normals_at(stream, start + pair, 2)[place % 2])
