"""Cross-entropy of tokens from 16-bit logits, which are read twice and written once.

Torch makes fp32 probabilities of a few hundred tokens, and passes over them seven times.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WORDS = 4096
_LOWEST = tl.constexpr(-3.4028234663852886e38)


def losses_in_place(logits: Tensor, targets: Tensor, *, want_gradients: bool) -> Tensor:
    """−log softmax(z)[target] of every token, [n] fp32.

    log Σ exp(z) is made in one pass: every lane keeps its largest z and Σ exp(z − largest) of the
    words it saw (Milakov and Gimelshein 2018, arXiv 1805.02867). A token's numbers depend on its
    own row alone.

    Args:
        logits: [n, vocabulary] in any precision; on request they become softmax(z) −
            onehot(target).
        targets: [n].
        want_gradients: whether they do.
    """
    tokens, words = logits.shape
    losses = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    if tokens:
        _losses[(tokens,)](
            logits,
            targets,
            losses,
            words,
            logits.stride(0),
            WANT_GRADIENTS=want_gradients,
            WORDS=_WORDS,
            num_warps=8,
        )
    return losses


@triton.jit
def _losses(
    logits,
    targets,
    losses,
    words,
    stride,
    WANT_GRADIENTS: tl.constexpr,
    WORDS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = logits + token * stride
    target = tl.load(targets + token)
    at_target = tl.load(row + target).to(tl.float32)
    # Not −∞, of which the difference with itself is no number.
    largest = tl.full((WORDS,), _LOWEST, dtype=tl.float32)
    sums = tl.zeros((WORDS,), dtype=tl.float32)
    for start in range(0, words, WORDS):
        places = start + tl.arange(0, WORDS)
        z = tl.load(row + places, mask=places < words, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, z)
        sums = sums * tl.exp(largest - larger) + tl.exp(z - larger)
        largest = larger
    top = tl.max(largest, axis=0)
    total = tl.sum(sums * tl.exp(largest - top), axis=0)
    tl.store(losses + token, tl.log(total) + (top - at_target))
    if WANT_GRADIENTS:
        for start in range(0, words, WORDS):
            places = start + tl.arange(0, WORDS)
            inside = places < words
            z = tl.load(row + places, mask=inside, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(z - top) / total - tl.where(places == target, 1.0, 0.0)
            tl.store(row + places, gradient.to(logits.dtype.element_ty), mask=inside)
