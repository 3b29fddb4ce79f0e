"""Whether this process computes with Triton's kernels; it does not, unless it is told to.

A kernel adds up in fp32, in an order that follows from a layer's shape and an example's own length
alone: no atomic operations, no block size that is tuned on a batch. So an example's numbers are the
same bits in whatever company.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Literal, get_args

import torch

from dpacc.errors import ConfigurationError

Kernels = Literal["torch", "triton"]

_chosen: Kernels = "torch"


def choose(kernels: Kernels, *, on: torch.device) -> None:
    """From now on use these kernels, in the whole process.

    On a GPU each of Triton's is first compared with torch there.

    Args:
        kernels: "torch" uses none of this room's.
        on: where the tensors are.

    Raises:
        ConfigurationError: there are no such kernels, or none for that device.
        PrivacyError: one of them does not compute what it should.
    """
    global _chosen
    _chosen = "torch"
    if kernels not in get_args(Kernels):
        raise ConfigurationError(
            f"kernels={kernels!r} must be one of {', '.join(get_args(Kernels))}"
        )
    if kernels == "triton":
        _require_triton(on)
    _chosen = kernels


def fused_on(device: torch.device) -> bool:
    """Whether this room's kernels are to be used there.

    >>> fused_on(torch.device("cpu"))
    False
    """
    return _chosen == "triton" and (device.type == "cuda" or _interprets())


def _interprets() -> bool:
    """Whether Triton's kernels run in its interpreter: slowly, and on any device, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _require_triton(on: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise ConfigurationError(
            "kernels='triton' needs Triton, which torch's builds for CUDA bring with them; "
            "choose kernels='torch'"
        )
    if _interprets():
        return
    if on.type != "cuda":
        raise ConfigurationError(
            f"kernels='triton' needs a GPU, and this run is on {on.type}; choose kernels='torch'"
        )
    from dpacc.layers.kernels.agreement import require_agreement

    require_agreement(on)
