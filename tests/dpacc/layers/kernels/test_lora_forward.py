"""A frozen layer and its LoRA in one pass give what torch gives in three."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dpacc.layers import fused_lora
from dpacc.layers.kernels import choice
from dpacc.layers.kernels.lora_forward import lora_forward
from tests.dpacc.layers.kernels.devices import DEVICE

SHAPES = [((2, 35), 37, 130, 3, True), ((3,), 16, 5, 16, False), ((1, 64), 32, 128, 20, True)]
"""Rows, in_features, out_features, rank, bias: more and fewer than blocks hold, and as many."""
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Of the largest number; the interpreter cuts bf16 where a GPU rounds it."""


def layer(
    dtype: torch.dtype, shape: tuple[tuple[int, ...], int, int, int, bool]
) -> tuple[torch.Tensor | None, ...]:
    """x, W, b, A and B; these two are fp32, and lose nothing in 16 bits."""
    rows, ins, outs, rank, has_bias = shape
    x, weight, bias = (
        torch.randn(*each, device=DEVICE).to(dtype) for each in ((*rows, ins), (outs, ins), (outs,))
    )
    lower, upper = (
        torch.randn(*each, device=DEVICE).to(dtype).float() for each in ((rank, ins), (outs, rank))
    )
    return x, weight, bias if has_bias else None, lower, upper


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_output_is_rounded_once(
    dtype: torch.dtype, shape: tuple[tuple[int, ...], int, int, int, bool]
) -> None:
    """From exact sums; what goes through A is rounded before B, as the backward will see it."""
    x, weight, bias, lower, upper = given = layer(dtype, shape)
    total, low = lora_forward(*given, scale=0.7)  # type: ignore[arg-type]
    assert (total.dtype, low.dtype) == (dtype, dtype)
    x, weight, a, b = (each.to(dtype).double() for each in (x, weight, lower, upper))  # type: ignore[union-attr]
    frozen = F.linear(x, weight, None if bias is None else bias.double())
    exact = (frozen + 0.7 * F.linear(low.double(), b), F.linear(x, a))
    for found, wanted in zip((total, low), exact, strict=True):
        assert (found - wanted).abs().max() <= ROUNDING[dtype] * wanted.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_layers_own_forward_is_torchs(
    shape: tuple[tuple[int, ...], int, int, int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer takes the kernel where it is chosen, and not for ranks that are too high."""
    given = (*layer(torch.float32, shape), 0.7, None, torch.tensor([0]))
    theirs = fused_lora._forward(*given)  # type: ignore[arg-type]
    monkeypatch.setattr(choice, "_chosen", "triton")
    ours = fused_lora._forward(*given)  # type: ignore[arg-type]
    monkeypatch.setattr(fused_lora, "MOST_FUSED_RANK", 2)
    beyond = fused_lora._forward(*given)  # type: ignore[arg-type]
    for one, two, three in zip(theirs, ours, beyond, strict=True):
        assert (one - two).abs().max() <= 1e-6 * one.abs().max()
        assert torch.equal(one, three)


def test_a_row_is_the_same_bits_in_any_company() -> None:
    """Alone, and as the last of seventy; no rows are none."""
    x = torch.randn(70, 37, device=DEVICE)
    weight, lower, upper = (torch.randn(s, device=DEVICE) for s in ((9, 37), (3, 37), (9, 3)))
    whole, alone, none = (
        lora_forward(each, weight, None, lower, upper, scale=2.0) for each in (x, x[69:], x[:0])
    )
    for both, its in zip(whole, alone, strict=True):
        assert torch.equal(both[69:], its)
    assert none[0].shape == (0, 9)
