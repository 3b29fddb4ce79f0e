"""Per-example gradients: one backward equals a loop over examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.layers.adapters import PerExampleLinear, attach_gradient_buffer, trainable_layers
from dpacc.step.admission.trainable import admit_model
from dpacc.step.strategies import Materialize
from tests.tiny_models import (
    CONFIGURATIONS,
    collate,
    examples,
    losses_of,
    tiny_base,
    tiny_model,
    with_lora,
)

LENGTHS = [7, 3, 12, 1, 9]
FAMILIES = list(CONFIGURATIONS)


def loop_gradients(model: nn.Module, family: str, data: list[dict[str, Any]]) -> torch.Tensor:
    """Each example's gradient by ordinary autograd, one example at a time, unpadded."""
    rows = []
    for example in data:
        model.zero_grad()
        losses_of(family)(model, collate([example])).sum().backward()
        rows.append(
            torch.cat(
                [
                    (p.grad if p.grad is not None else torch.zeros_like(p)).flatten()
                    for p in model.parameters()
                    if p.requires_grad
                ]
            )
        )
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def materialize(model: nn.Module) -> Materialize:
    """One-pass gradients of a model whose layers it prepares."""
    return Materialize(attach_gradient_buffer(model), backward, torch.device("cpu"))


def backward(loss: torch.Tensor, keep_graph: bool) -> None:
    loss.backward(retain_graph=keep_graph)


def one_pass_gradients(model: nn.Module, family: str, data: list[dict[str, Any]]) -> torch.Tensor:
    """The same from one backward over the padded micro-batch."""
    return materialize(model).rows(losses_of(family)(model, collate(data))).clone()


def assert_same_gradients(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.norm(dim=1).min() > 0 or (expected.norm(dim=1) > 0).sum() >= len(expected) - 1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_equals_loop(family: str) -> None:
    """Padded, ragged micro-batches give each example the gradient it has alone."""
    model, data = tiny_model(family), examples(LENGTHS, family=family)
    expected = loop_gradients(model, family, data)
    assert_same_gradients(one_pass_gradients(model, family, data), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_equals_loop_under_activation_checkpointing(family: str) -> None:
    """Recomputing activations fires no gradient twice."""
    model, data = tiny_model(family), examples(LENGTHS, family=family)
    expected = loop_gradients(model, family, data)
    model.enable_input_require_grads()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    assert_same_gradients(one_pass_gradients(model, family, data), expected)


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_one_pass_equals_loop_on_an_nf4_base(family: str) -> None:
    """A bitsandbytes 4-bit base changes nothing: the adapters alone are differentiated."""
    model = with_lora(quantized(tiny_base(family)), family)
    kinds = {type(m).__name__ for m in model.modules()}
    assert "Linear4bit" in kinds
    data = examples(LENGTHS, family=family)
    expected = loop_gradients(model, family, data)
    assert_same_gradients(one_pass_gradients(model, family, data), expected)


def test_rank_stabilised_lora_equals_the_loop() -> None:
    """rsLoRA only changes the scaling, and its gradients with it."""
    model, data = with_lora(tiny_base("llama"), "llama", use_rslora=True), examples(LENGTHS)
    expected = loop_gradients(model, "llama", data)
    assert_same_gradients(one_pass_gradients(model, "llama", data), expected)


def test_frozen_a_equals_the_loop() -> None:
    """FFA-LoRA trains B alone: A keeps no slot, and B's gradients are the loop's."""
    model, data = tiny_model("llama"), examples(LENGTHS)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    expected = loop_gradients(model, "llama", data)
    actual = one_pass_gradients(model, "llama", data)
    assert actual.shape[1] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert_same_gradients(actual, expected)


def test_dora_is_refused() -> None:
    """DoRA's magnitudes have no per-example rule; the layer is named."""
    model = with_lora(tiny_base("llama"), "llama", use_dora=True)
    with pytest.raises(PrivacyError, match="magnitude"):
        admit_model(model)


def quantized(base: nn.Module) -> nn.Module:
    """`base` with its linear layers (but the head) in NF4, double-quantized, fp32 compute."""
    import bitsandbytes as bnb

    options = {"compute_dtype": torch.float32, "quant_type": "nf4", "compress_statistics": True}
    base.is_loaded_in_4bit = True
    return _stored_as(bnb.nn.Linear4bit, base, **options)


def in_int8(base: nn.Module) -> nn.Module:
    """`base` with its linear layers (but the head) in int8."""
    import bitsandbytes as bnb

    base.is_loaded_in_8bit = True
    return _stored_as(bnb.nn.Linear8bitLt, base, has_fp16_weights=False)


def _stored_as(kind: type[nn.Linear], base: nn.Module, **options: Any) -> nn.Module:
    for name, module in list(base.named_modules()):
        if type(module) is not nn.Linear or name == "lm_head":
            continue
        bias = module.bias is not None
        layer = kind(module.in_features, module.out_features, bias=bias, **options)
        layer.load_state_dict(module.state_dict())
        parent = base.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], layer.to("cpu"))
    return base


def test_a_layer_used_twice_adds_up() -> None:
    """A shared layer's two uses in one forward sum, as autograd would sum them."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    inputs = torch.randn(3, 5, 4)
    rows = []
    for x in inputs:
        layer.zero_grad()
        layer(layer(x)).square().sum().backward()
        rows.append(torch.cat([layer.weight.grad.flatten(), layer.bias.grad]))
    layer.zero_grad(set_to_none=True)
    gradients = materialize(layer)
    losses = layer(layer(inputs)).square().sum(dim=(1, 2))
    torch.testing.assert_close(gradients.rows(losses), torch.stack(rows), rtol=1e-4, atol=1e-4)


def test_no_raw_gradient_appears() -> None:
    """After the backward no parameter holds a gradient, so no wrapper can reduce one."""
    model, data = tiny_model("llama"), examples(LENGTHS)
    one_pass_gradients(model, "llama", data)
    assert all(p.grad is None for p in model.parameters())


def test_an_unused_layer_is_zero_not_left_over() -> None:
    """A layer that sat out this micro-batch shows nothing of the last one."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"used": nn.Linear(2, 2, bias=False), "idle": nn.Linear(2, 2, bias=False)}
    )
    gradients = materialize(model)
    inputs = torch.ones(1, 2)
    both = (model["used"](inputs) + model["idle"](inputs)).sum(dim=1)
    assert gradients.rows(both)[0, 4:].abs().sum() > 0
    rows = gradients.rows(model["used"](inputs).sum(dim=1))
    assert rows[0, :4].abs().sum() > 0
    assert rows[0, 4:].abs().sum() == 0


def test_inputs_without_an_example_dimension_are_refused() -> None:
    """A layer that sees flattened tokens cannot tell examples apart."""
    layer = nn.Linear(4, 2)
    gradients = materialize(layer)
    with pytest.raises(PrivacyError, match=r"first dimension is 15 while there are 3 losses"):
        gradients.rows(layer(torch.randn(15, 4)).view(3, -1).sum(dim=1))


def test_a_backward_outside_a_step_is_refused() -> None:
    """losses.backward() by itself would leave gradients that nobody clips."""
    layer = nn.Linear(4, 2)
    attach_gradient_buffer(layer)
    with pytest.raises(PrivacyError, match=r"outside step\.backward"):
        layer(torch.randn(3, 4)).sum().backward()


def test_bf16_inputs_compute_in_bf16_and_store_fp32() -> None:
    """The layer follows its input's dtype, and its fp32 weights get fp32 gradient rows."""
    layer = nn.Linear(4, 2)
    gradients = materialize(layer)
    output = layer(torch.randn(3, 5, 4, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    assert gradients.rows(output.float().sum(dim=(1, 2))).dtype == torch.float32


def test_names_and_state_are_unchanged() -> None:
    """Attaching changes classes only: the adapter saves under the same names as before."""
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attach_gradient_buffer(model)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    layers = [layer for _, layer in trainable_layers(model)]
    assert layers
    assert all(type(layer) is PerExampleLinear for layer in layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_frozen_factor_works_on_a_base_of_any_precision(dtype: torch.dtype) -> None:
    """Where A stays as it was drawn, B's gradients are what autograd says, one example a time."""
    from dpacc.recipe.models import add_lora

    def half_trained() -> nn.Module:
        base = tiny_base("llama").to(dtype).requires_grad_(False)
        return add_lora(model=base, rank=2, alpha=4, method="ffa")

    data = examples(LENGTHS)
    found = one_pass_gradients(half_trained(), "llama", data)
    expected = loop_gradients(half_trained(), "llama", data)
    assert expected.abs().max() > 0
    closeness = 1e-5 if dtype == torch.float32 else 0.05
    assert (found - expected).norm() <= closeness * expected.norm()
