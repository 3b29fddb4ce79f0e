"""Tiles of four-bit weights: bitsandbytes' products, never a whole weight, never one too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dpacc.layers import packed_weights
from dpacc.layers.packed_weights import PackedWeight, unpack_by_tiles
from tests.dpacc.layers.test_adapters import (
    LENGTHS,
    assert_same_gradients,
    loop_gradients,
    materialize,
    one_pass_gradients,
    quantized,
)
from tests.tiny_models import examples, tiny_base, with_lora

ROWS, COLUMNS, BLOCK = 200, 320, 64


def packed_layer(
    *,
    kind: str = "nf4",
    nested: bool = True,
    dtype: torch.dtype = torch.float32,
    bias: bool = False,
    compute: torch.dtype | None = None,
    columns: int = COLUMNS,
) -> Any:
    """A frozen layer of bitsandbytes, packed."""
    torch.manual_seed(0)
    layer: Any = bnb.nn.Linear4bit(
        columns,
        ROWS,
        bias=bias,
        quant_type=kind,
        compress_statistics=nested,
        compute_dtype=compute,
    )
    layer.weight.data = torch.randn(ROWS, columns, dtype=dtype)
    return layer.to(dtype).to("cpu").requires_grad_(False)


class Watch(TorchDispatchMode):
    """Counts the numbers of what is unpacked, and the products of at least some size."""

    def __init__(self, least: int = 1) -> None:
        super().__init__()
        self.unpacked: list[int] = []
        self.products, self.least = 0, least

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "dequantize_4bit":
            self.unpacked.append(result.numel())
        if name in ("mm", "addmm_") and args[-1].numel() >= self.least:
            self.products += 1
        return result


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 rows of fp32, so that the last is smaller, and of one block of columns."""
    monkeypatch.setattr(packed_weights, "TILE_BYTES", BLOCK * COLUMNS * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.usefixtures("small_tiles")
def test_sums_and_their_gradients_are_bitsandbytes(
    kind: str, nested: bool, bias: bool, dtype: torch.dtype
) -> None:
    """Of both kinds of numbers and scales, with and without a bias, in every dtype."""
    layer = packed_layer(kind=kind, nested=nested, dtype=dtype, bias=bias)
    inputs = [torch.randn(3, 5, COLUMNS).to(dtype).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    before = torch.randn(3, 5, ROWS).to(dtype)
    expected = before + layer(inputs[0])
    weight = PackedWeight.of(layer, inputs[1])
    assert weight is not None
    total = weight.onto(before.clone(), inputs[1], layer.bias)
    near = {"rtol": 1e-5, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 0.02, "atol": 0.3}
    torch.testing.assert_close(total, expected, **near)
    upstream = torch.randn_like(total)
    gradients = torch.autograd.grad([expected, total], inputs, [upstream, upstream])
    torch.testing.assert_close(*reversed(gradients), **near)


@pytest.mark.usefixtures("small_tiles")
def test_no_weight_is_unpacked_whole() -> None:
    """Neither in the forward nor in the backward; bitsandbytes' own way does so in both."""
    layer, x = packed_layer(bias=True), torch.randn(2, 3, COLUMNS, requires_grad=True)
    outputs = []
    for tiled in (False, True):
        if tiled:
            assert unpack_by_tiles(nn.Sequential(layer, nn.Linear(2, 2))) == 1
        with Watch() as watch:
            outputs.append(layer(x))
            outputs[-1].sum().backward()
        assert (ROWS * COLUMNS in watch.unpacked) == (not tiled)
    assert watch.unpacked == 3 * [BLOCK * COLUMNS] + [8 * COLUMNS] + 5 * [BLOCK * ROWS]
    torch.testing.assert_close(*outputs)


def test_the_total_gets_its_gradient_where_the_input_wants_none() -> None:
    """As in the first layer behind frozen embeddings: nothing is unpacked to be thrown away."""
    layer, total = packed_layer(), torch.randn(2, ROWS, requires_grad=True)
    x = torch.randn(2, COLUMNS)
    weight = PackedWeight.of(layer, x)
    assert weight is not None
    summed = weight.onto(total * 1, x, None).sum()
    with Watch() as watch:
        (gradient,) = torch.autograd.grad(summed, total)
    assert gradient.eq(1).all()
    assert not watch.unpacked


def hooked(layer: Any) -> None:
    layer.register_forward_hook(lambda *_: None)


def learning(layer: Any) -> None:
    layer.bias.requires_grad_()


def repacked(layer: Any) -> None:
    layer.weight.quant_state.packing_format_for_cpu = True


ODDITIES: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "hook": ({}, hooked),
    "trained-bias": ({"bias": True}, learning),
    "repacked": ({}, repacked),
    "computed in another dtype": ({"compute": torch.bfloat16}, lambda _: None),
    "cut blocks": ({"columns": COLUMNS + 32}, lambda _: None),
}


@pytest.mark.parametrize("oddity", list(ODDITIES))
def test_a_layer_that_does_more_goes_its_own_way(oddity: str) -> None:
    """Whatever but the packed numbers has a say, the layer is called."""
    settings, change = ODDITIES[oddity]
    layer = packed_layer(**settings)
    change(layer)
    assert PackedWeight.of(layer, torch.randn(2, layer.in_features)) is None


def test_so_does_what_is_no_packed_layer_or_has_no_tokens() -> None:
    """A plain layer, one that is not packed yet, and an input without tokens."""
    x = torch.randn(2, COLUMNS)
    bare = bnb.nn.Linear4bit(COLUMNS, ROWS)
    assert PackedWeight.of(nn.Linear(COLUMNS, ROWS), x) is None
    assert PackedWeight.of(bare, x) is None
    assert PackedWeight.of(packed_layer(), x[:0]) is None
    assert PackedWeight.of(packed_layer(), x) is not None


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_per_example_gradients_through_tiles_are_a_loops(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With activations made again: the loop goes through PEFT's and bitsandbytes' own layers."""
    model = with_lora(quantized(tiny_base(family, hidden=64)), family)
    data = examples(LENGTHS, family=family)
    expected = loop_gradients(model, family, data)
    monkeypatch.setattr(packed_weights, "TILE_BYTES", 1)
    model.enable_input_require_grads()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    with Watch() as watch:
        actual = one_pass_gradients(model, family, data)
    assert 64 * 64 in watch.unpacked
    assert_same_gradients(actual, expected)


def test_a_blocks_last_product_is_not_made_again() -> None:
    """Of two layers in a checkpoint the first is made twice and the second once."""
    base = nn.Sequential(packed_layer(), nn.Linear(ROWS, COLUMNS), packed_layer())
    options = LoraConfig(r=2, target_modules=["0", "2"])
    model: Any = get_peft_model(base.requires_grad_(False), options)
    rows = materialize(model)
    x = torch.randn(2, 3, COLUMNS, requires_grad=True)
    with Watch(least=ROWS * COLUMNS) as watch:
        output: Tensor = checkpoint(model, x, use_reentrant=False)
        assert watch.products == 2
        rows.rows(output.sum(dim=(1, 2)))
    assert watch.products == 2 + 1 + 2 + 1  # the first again, both backwards, and the plain layer's
