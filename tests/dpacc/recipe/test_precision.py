"""A base computes in what its device is good at, unless it is told otherwise."""

from __future__ import annotations

import pytest
import torch

from dpacc.recipe.precision import computes_in_16_bits, precision_for
from dpacc.recipe.settings import Precision


@pytest.mark.parametrize(
    ("supported", "device", "dtype", "expected"),
    [
        (True, "cpu", "auto", None),
        (False, "cpu", "auto", torch.float32),
        (False, "cuda", "auto", None),
        (False, "cpu", "bfloat16", torch.bfloat16),
    ],
)
def test_auto_computes_in_what_the_device_is_good_at(
    supported: bool,
    device: str,
    dtype: Precision,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A processor that only emulates 16 bits computes in 32, unless it is told otherwise."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert computes_in_16_bits(torch.device(device)) is (supported or device == "cuda")
    assert precision_for(dtype, device=torch.device(device), otherwise=None) == expected
