"""Which precision a frozen base computes in, when nobody says."""

from __future__ import annotations

import torch

from dpacc.recipe.settings import Precision

_NAMED = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def computes_in_16_bits(device: torch.device | None) -> bool:
    """Whether bfloat16 products are arithmetic there, and not emulated ten times as slowly.

    Args:
        device: none is the processor.
    """
    if device is not None and device.type != "cpu":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def precision_for(
    dtype: Precision, *, device: torch.device | None, otherwise: torch.dtype | None
) -> torch.dtype | None:
    """What is computed in: what `dtype` names, or for `auto` what suits the device.

    Args:
        dtype: a setting of the run.
        device: where the base will be; none is the processor.
        otherwise: what `auto` means on a device with 16-bit arithmetic; none is the saved dtype.

    Returns:
        The dtype, or none for the one that the base was saved in.

    >>> precision_for("float16", device=None, otherwise=torch.bfloat16)
    torch.float16
    >>> precision_for("auto", device=torch.device("cuda"), otherwise=torch.bfloat16)
    torch.bfloat16
    """
    if dtype != "auto":
        return _NAMED[dtype]
    return otherwise if computes_in_16_bits(device) else torch.float32
