"""Each example's gradient of a layer, made, measured or added without being written."""

from __future__ import annotations

import pytest
import torch

from dpacc.layers.gradient_buffer import GradientBuffer, KeptGradients, Layout, Slot, SquaredNorms
from dpacc.layers.kernels import choice, outer_products
from dpacc.layers.kernels.outer_products import add_scaled_products, products, squared_norms
from tests.dpacc.layers.kernels.devices import DEVICE

SHAPES = [(37, 70, 5), (1, 3, 130), (64, 16, 16)]
"""Tokens, out_features, in_features: more and fewer than blocks hold, and exactly as many."""


def factors(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    tokens, *widths = shape
    return [torch.randn(3, tokens, each, device=DEVICE).to(dtype) for each in widths]


def exact(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.bmm(g.double().mT, x.double()).flatten(1)


@pytest.mark.parametrize(("tokens", "outs", "ins"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_and_norms_are_torchs(
    dtype: torch.dtype, tokens: int, outs: int, ins: int
) -> None:
    """To fp32's rounding in every precision, for 16 bits are multiplied and added exactly."""
    g, x = factors((tokens, outs, ins), dtype)
    block, squares = products(g, x)
    wanted = exact(g, x)
    assert (block - wanted).abs().max() < 1e-5
    assert (squares / wanted.square().sum(dim=1) - 1).abs().max() < 1e-6
    assert torch.equal(squares, squared_norms(g, x))


@pytest.mark.parametrize(("tokens", "outs", "ins"), SHAPES)
def test_the_scaled_sum_is_torchs(tokens: int, outs: int, ins: int) -> None:
    """What is left out may hold anything; what is added is measured."""
    g, x = factors((tokens, outs, ins))
    scales = torch.tensor([0.3, 0.0, 0.7], device=DEVICE)
    wanted = exact(g, x) * scales[:, None]
    g[1, 0, 0] = torch.nan
    total = torch.ones(outs * ins, device=DEVICE)
    squares = add_scaled_products(total, g, x, scales=scales)
    assert (total - 1 - wanted.sum(dim=0)).abs().max() < 1e-5
    assert (squares - wanted.square().sum(dim=1)).abs().max() < 1e-5 * squares.max()


def test_a_layer_of_many_tiles_is_measured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than one turn of the sum over them holds."""
    monkeypatch.setattr(outer_products, "_PARTS", 2)
    g, x = torch.ones(1, 1, 129, device=DEVICE), torch.ones(1, 1, 1, device=DEVICE)
    assert float(squared_norms(g, x)) == 129


def test_an_examples_numbers_are_the_same_bits_in_any_company() -> None:
    """Alone, after another example, and with the padding that a longer one gives it."""
    g, x = factors((37, 70, 5))
    block, squares = products(g, x)
    padded = [torch.nn.functional.pad(each[1:2], (0, 0, 0, 60)) for each in (g, x)]
    for alone in ((g[1:2], x[1:2]), padded):
        its_block, its_squares = products(*alone)
        assert torch.equal(its_block, block[1:2])
        assert torch.equal(its_squares, squares[1:2])
    total = torch.zeros(350, device=DEVICE)
    add_scaled_products(total, g, x, scales=torch.tensor([0.0, 1.0, 0.0], device=DEVICE))
    assert torch.equal(total, block[1])


def test_no_number_stays_none_and_no_examples_are_none() -> None:
    """A NaN reaches the norm, so that clipping empties its example; an empty draw has no norms."""
    g, x = factors((37, 70, 5))
    g[1, 36, 69] = torch.nan
    assert squared_norms(g, x).isnan().tolist() == [False, True, False]
    assert products(g[:0], x[:0])[1].shape == (0,)


@pytest.mark.parametrize("sink", [KeptGradients, SquaredNorms])
@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("units", [3, 2])
def test_the_buffer_measures_what_counts(
    units: int, learning: bool, sink: type[KeptGradients], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units of several examples, and elements that do not learn in this step, as torch does."""
    weight = torch.nn.Parameter(torch.zeros(70, 5))
    buffer = GradientBuffer(Layout({"weight": weight}))
    (slot,) = buffer.layout.slots.values()
    assert isinstance(slot, Slot)
    mask = (torch.arange(350) % 3 > 0).view(70, 5).to(DEVICE)
    buffer.learning = {slot: mask} if learning else {}
    owners = None if units == 3 else torch.tensor([0, 1, 0], device=DEVICE)
    g, x = factors((7, 70, 5), torch.bfloat16)
    found = []
    for kernels in ("torch", "triton"):
        monkeypatch.setattr(choice, "_chosen", kernels)
        kept = sink(buffer.layout, units=units, device=DEVICE)
        with buffer.open(examples=3, sink=kept, owners=owners):
            buffer.write_products(slot, g, x)
        assert buffer.in_half_precision
        found.append(kept.squares)
    assert (found[0] / found[1] - 1).abs().max() < 1e-2
