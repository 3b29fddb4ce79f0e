"""What is clipped is added in one pass, as torch adds it in three."""

from __future__ import annotations

import pytest
import torch

from dpacc.layers.gradient_buffer import Slot
from dpacc.layers.kernels import choice
from dpacc.step.clipping import add_clipped
from tests.dpacc.layers.kernels.devices import DEVICE

SIZES = (1, 1029)


def summed(kernels: str, rows: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Ones and the clipped gradients, in two slots of those sizes with a column between them."""
    slots = [
        Slot(name="", index=i, offset=2 * i, shape=torch.Size([n])) for i, n in enumerate(SIZES)
    ]
    total = torch.ones(2 + SIZES[1], device=DEVICE)
    choice._chosen = kernels  # type: ignore[assignment]
    blocks = {s: rows[:, s.offset : s.end].clone() for s in slots}
    add_clipped(total=total, blocks=blocks, scales=scales)
    return total.cpu()


@pytest.fixture(autouse=True)
def torch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_chosen", "torch")


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
def test_the_sum_is_torchs(clipping: str) -> None:
    """One scale a unit or one a slot; units that are left out may hold anything, NaN too."""
    rows = torch.randn(5, 2 + SIZES[1], device=DEVICE)
    scales = torch.rand(5, 2 if clipping == "per-layer" else 1, device=DEVICE).expand(5, 2).clone()
    rows[3], scales[3] = torch.nan, 0.0
    theirs, ours = (summed(each, rows, scales) for each in ("torch", "triton"))
    assert (theirs - ours).abs().max() < 1e-6
    assert (ours[2:] != 1).all()


def test_a_unit_adds_the_same_bits_whoever_is_left_out_beside_it() -> None:
    """To a sum of zeros, alone or among units that clipping emptied."""
    rows, scales = torch.randn(4, 2 + SIZES[1], device=DEVICE), torch.zeros(4, 2, device=DEVICE)
    scales[2] = 0.3
    alone, among = (summed("triton", rows[s], scales[s]) for s in (slice(2, 3), slice(0, 4)))
    assert torch.equal(alone, among)


def test_no_units_add_nothing() -> None:
    """An empty draw leaves the sum as it was."""
    rows, scales = torch.ones(0, 1031, device=DEVICE), torch.ones(0, 2, device=DEVICE)
    assert (summed("triton", rows, scales) == 1).all()
