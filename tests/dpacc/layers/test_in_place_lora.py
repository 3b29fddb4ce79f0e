"""LoRA's sum in one product: PEFT's numbers, fewer passes, and PEFT's own way for all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dpacc.layers import fused_lora
from dpacc.layers.adapters import PerExampleLinear, attach_gradient_buffer
from dpacc.layers.in_place_lora import add_in_place
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import quantized
from tests.tiny_models import TARGETS, collate, examples, tiny_base, tiny_model, with_lora

BATCH = collate(examples([7, 3, 5]))


def logits(model: nn.Module) -> Tensor:
    return model(**BATCH).logits


@pytest.mark.parametrize("family", ["llama", "mistral", "gptj", "gpt2", "gpt_neox", "opt"])
def test_outputs_are_pefts(family: str) -> None:
    """With and without biases, whose outputs are views, and GPT-2's transposed layers."""
    expected = logits(tiny_model(family))
    model = tiny_model(family)
    attach_gradient_buffer(model)
    assert add_in_place(model, upper=PerExampleLinear) > 2
    torch.testing.assert_close(logits(model), expected)


def test_a_quantized_base_gives_pefts_outputs() -> None:
    """An NF4 layer's output is added to as well."""
    build: Callable[[], nn.Module] = lambda: with_lora(  # noqa: E731
        quantized(tiny_base("llama", hidden=64)), "llama"
    )
    expected = logits(build())
    model = build()
    attach_gradient_buffer(model)
    torch.testing.assert_close(logits(model), expected)


class WidePasses(TorchDispatchMode):
    """Counts products by a number and sums of tensors of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.seen = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mul", "add", "clone") and result.shape[-1] == self.width:
            self.seen += 1
        return result


def test_nothing_as_wide_as_the_output_is_scaled_summed_or_copied() -> None:
    """Neither forward nor backward: PEFT does so in each, and the counter sees it."""
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Linear(8, 24, bias=False)).requires_grad_(False)
    passes = []
    for lean in (False, True):
        model = get_peft_model(frozen, LoraConfig(r=2, lora_alpha=6, target_modules=["0"]))
        if lean:
            buffer = attach_gradient_buffer(model)
        inputs = torch.randn(3, 5, 8, requires_grad=True)
        with WidePasses(24) as count:
            output = model(inputs)
            if lean:
                losses = (output * output.detach()).sum(dim=(1, 2))
                count.seen -= 1
                Materialize(buffer, lambda loss, keep: loss.backward(), inputs.device).rows(losses)
            else:
                losses = (output * output.detach()).sum(dim=(1, 2))
                count.seen -= 1
                losses.sum().backward()
        passes.append(count.seen)
        frozen = model.unload()
    assert passes == [4, 1]  # the loss' own backward is one


@pytest.mark.parametrize("oddity", ["trained bias", "hook", "dropout", "plain"])
def test_only_a_frozen_plain_linear_layer_is_fused_with_its_adapter(
    oddity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where anything else has a say, the layer is called, and what it learns is learned."""
    fused = Mock(side_effect=fused_lora._fused_lora)
    monkeypatch.setattr(fused_lora, "_fused_lora", fused)
    frozen = nn.Sequential(nn.Linear(8, 24)).requires_grad_(False)
    dropout = 0.5 if oddity == "dropout" else 0.0
    options = LoraConfig(r=2, target_modules=["0"], lora_dropout=dropout)
    model: Any = get_peft_model(frozen, options)
    base = model.base_model.model[0].base_layer
    base.bias.requires_grad_(oddity == "trained bias")
    calls = Mock(return_value=None)
    if oddity == "hook":
        base.register_forward_pre_hook(calls)
    buffer = attach_gradient_buffer(model)
    losses = model(torch.randn(3, 5, 8)).square().sum(dim=(1, 2))
    rows = Materialize(buffer, lambda loss, keep: loss.backward(), losses.device).rows(losses)
    assert fused.called == (oddity == "plain")
    assert calls.called == (oddity == "hook")
    bias = buffer.layout.slots.get(id(base.bias))
    assert (bias is not None) == (oddity == "trained bias")
    if bias is not None:
        assert rows[:, bias.offset : bias.end].abs().min() > 0


ODDITIES: dict[str, Callable[[Any], None]] = {
    "disabled": lambda model: model.disable_adapter_layers(),
    "merged": lambda model: model.merge_adapter(),
    "two at once": lambda model: model.base_model.set_adapter(["default", "second"]),
}


@pytest.mark.parametrize("oddity", list(ODDITIES))
def test_whatever_is_not_one_plain_adapter_goes_pefts_way(oddity: str) -> None:
    """Disabled, merged, or beside another: the outputs are PEFT's, to the last bit."""
    outputs = []
    for lean in (False, True):
        model: Any = tiny_model("llama")
        model.add_adapter("second", LoraConfig(r=2, target_modules=TARGETS["llama"]))
        if lean:
            assert add_in_place(model, upper=nn.Linear) > 2
        ODDITIES[oddity](model)
        outputs.append(logits(model))
    assert torch.equal(*outputs)


def test_dora_and_biases_go_pefts_way() -> None:
    """DoRA's norm and a B with a bias are not LoRA's plain sum."""
    for options in ({"use_dora": True}, {"lora_bias": True}):
        expected, lean = (with_lora(tiny_base("llama"), "llama", **options) for _ in range(2))
        add_in_place(lean, upper=nn.Linear)
        assert torch.equal(logits(lean), logits(expected))


def test_a_layer_under_autocast_goes_pefts_way() -> None:
    """Autocast decides dtypes operation by operation, which one product cannot follow."""
    expected, lean = tiny_model("llama"), tiny_model("llama")
    add_in_place(lean, upper=nn.Linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logits(lean), logits(expected))
