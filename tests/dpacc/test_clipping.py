"""Clipping: no example weighs more than C, whatever it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpacc.clipping import clipped_sum, clipping_scales

RULES = ["flat", "automatic"]


@pytest.mark.parametrize("clipping", RULES)
@given(
    seed=st.integers(0, 10**6),
    magnitude=st.floats(1e-6, 1e15),
    bound=st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=60)
def test_one_example_never_exceeds_the_bound(
    clipping: str, seed: int, magnitude: float, bound: float
) -> None:
    """The clipped gradient of any one example has norm at most C(1 + 1e-5)."""
    row = torch.randn(1, 257, generator=torch.Generator().manual_seed(seed)) * magnitude
    total = clipped_sum(gradients=row, max_grad_norm=bound, clipping=clipping)
    assert total.double().norm() <= bound * (1 + 1e-5)
    assert total.norm() > 0


@pytest.mark.parametrize("clipping", RULES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf"), 3e38])
def test_a_non_finite_example_contributes_zero(clipping: str, poison: float) -> None:
    """NaN, infinity, or a norm beyond fp32 leaves its neighbours' sum untouched."""
    rows = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    healthy = clipped_sum(gradients=rows[:3].clone(), max_grad_norm=1.0, clipping=clipping)
    rows[3, 2] = poison
    rows[3, 7] = poison
    total = clipped_sum(gradients=rows, max_grad_norm=1.0, clipping=clipping)
    assert torch.equal(total, healthy)


def test_flat_clipping_leaves_small_gradients_alone() -> None:
    """Below C the scale is exactly 1, and a zero gradient stays zero."""
    scales = clipping_scales(
        norms=torch.tensor([0.0, 0.5, 1.0]), max_grad_norm=1.0, clipping="flat"
    )
    assert scales.tolist() == [1.0, 1.0, 1.0]


def test_automatic_clipping_makes_examples_count_alike() -> None:
    """Gradients whose norms are far above γ all end near norm C."""
    norms = torch.tensor([10.0, 1000.0])
    scales = clipping_scales(norms=norms, max_grad_norm=2.0, clipping="automatic")
    torch.testing.assert_close(scales * norms, torch.tensor([2.0, 2.0]), rtol=1e-2, atol=0)


def test_the_sum_does_not_use_reduced_precision_matmuls() -> None:
    """A global bf16 or TF32 matmul setting does not coarsen the clipped sum."""
    rows = torch.randn(8, 4096, generator=torch.Generator().manual_seed(0))
    exact = clipped_sum(gradients=rows.clone().double(), max_grad_norm=1.0, clipping="flat")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        total = clipped_sum(gradients=rows, max_grad_norm=1.0, clipping="flat")
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-7)
