"""Clipping: no unit weighs more than C, whatever it is and by whichever rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpacc.layers.gradient_buffer import Layout
from dpacc.step.clipping import add_clipped, clipping_scales

RULES = ["flat", "automatic", "per-layer", "adaptive"]
LAYOUT = Layout(
    {"first": nn.Parameter(torch.zeros(10, 20)), "second": nn.Parameter(torch.zeros(57))}
)


def clipped_sum(rows: torch.Tensor, bound: float, clipping: str) -> torch.Tensor:
    slots = LAYOUT.slots.values()
    parts = [rows[:, slot.offset : slot.end].square().sum(dim=1) for slot in slots]
    squares = torch.stack(parts, dim=1)
    scales = clipping_scales(squares=squares, max_grad_norm=bound, clipping=clipping)
    total = torch.zeros(rows.shape[1], dtype=rows.dtype)
    blocks = {slot: rows[:, slot.offset : slot.end].clone() for slot in slots}
    add_clipped(total=total, blocks=blocks, scales=scales)
    return total


def random_rows(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, LAYOUT.width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("clipping", RULES)
@given(
    seed=st.integers(0, 10**6),
    magnitude=st.floats(1e-6, 1e15),
    imbalance=st.floats(1e-3, 1e3),
    bound=st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=60)
def test_one_unit_never_exceeds_the_bound(
    clipping: str, seed: int, magnitude: float, imbalance: float, bound: float
) -> None:
    """The clipped gradient of any one unit has norm at most C(1 + 1e-5)."""
    row = random_rows(1, seed=seed) * magnitude
    row[:, :200] *= imbalance
    total = clipped_sum(row, bound, clipping)
    assert total.double().norm() <= bound * (1 + 1e-5)
    assert total.norm() > 0


@pytest.mark.parametrize("clipping", RULES)
@pytest.mark.parametrize("column", [2, 230])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf"), 3e38])
def test_a_non_finite_unit_contributes_zero(clipping: str, poison: float, column: int) -> None:
    """NaN, infinity, or a norm beyond fp32, in any layer, leaves its neighbours' sum untouched."""
    rows = random_rows(4)
    healthy = clipped_sum(rows[:3].clone(), 1.0, clipping)
    rows[3, column] = poison
    assert torch.equal(clipped_sum(rows, 1.0, clipping), healthy)


def test_flat_clipping_leaves_small_gradients_alone() -> None:
    """Below C the scale is exactly 1, and a zero gradient stays zero."""
    squares = torch.tensor([[0.0], [0.25], [1.0]])
    scales = clipping_scales(squares=squares, max_grad_norm=1.0, clipping="flat")
    assert scales.flatten().tolist() == [1.0, 1.0, 1.0]


def test_automatic_clipping_makes_units_count_alike() -> None:
    """Gradients whose norms are far above γ all end near norm C."""
    norms = torch.tensor([[10.0], [1000.0]])
    scales = clipping_scales(squares=norms**2, max_grad_norm=2.0, clipping="automatic")
    torch.testing.assert_close(scales * norms, torch.full((2, 1), 2.0), rtol=1e-2, atol=0)


def test_per_layer_clipping_bounds_each_layer_by_its_share() -> None:
    """Two layers get C/√2 each; a small layer is not scaled down for a large one."""
    scales = clipping_scales(
        squares=torch.tensor([[0.01, 400.0]]), max_grad_norm=2.0, clipping="per-layer"
    )
    torch.testing.assert_close(scales, torch.tensor([[1.0, 2.0 / 2**0.5 / 20.0]]))


def test_the_sum_does_not_use_reduced_precision_matmuls() -> None:
    """A global bf16 or TF32 matmul setting does not coarsen the clipped sum."""
    rows = random_rows(8)
    exact = clipped_sum(rows.clone().double(), 1.0, "flat")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        total = clipped_sum(rows, 1.0, "flat")
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-6)
