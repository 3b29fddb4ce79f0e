"""Layers as operators of torch's library: the same numbers, and shapes told without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.whitening import fix_upper
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import backward

CPU = torch.device("cpu")
TOKENS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


def with_adapter(layer: nn.Module, **options: Any) -> nn.Module:
    """A frozen layer with LoRA whose B is not zero."""
    frozen = nn.Sequential(layer).requires_grad_(False)
    settings = {"r": 2, "lora_alpha": 6, "target_modules": ["0"], "init_lora_weights": False}
    return get_peft_model(frozen, LoraConfig(**settings | options))


def with_whitened_adapter() -> nn.Module:
    model = with_adapter(nn.Linear(8, 24))
    fix_upper(model, seed=1)
    return model


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor, set[str]]] = {
    "LoRA": (lambda: with_adapter(nn.Linear(8, 24)), TOKENS, {"fused_lora"}),
    "LoRA in parts": (
        lambda: with_adapter(nn.Linear(8, 24), lora_dropout=1e-9),
        TOKENS,
        {"per_example_linear"},
    ),
    "linear": (lambda: nn.Linear(8, 24), TOKENS, {"per_example_linear"}),
    "whitened": (with_whitened_adapter, TOKENS, {"per_example_whitened"}),
    "embedding": (
        lambda: nn.Embedding(9, 4, padding_idx=1),
        torch.arange(15).view(3, 5) % 9,
        {"per_example_embedding"},
    ),
    "normalisation": (lambda: nn.LayerNorm(8), TOKENS, {"per_example_affine"}),
}


class Called(TorchDispatchMode):
    """Which of the operators were called; each is told shapes without numbers as well."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.namespace == "dpacc":
            self.names.add(func._schema.name)
            with FakeTensorMode() as mode:
                told = func(*tree_map_only(Tensor, mode.from_tensor, args))
            assert [forms(each) for each in tree_leaves(told)] == [
                forms(each) for each in tree_leaves(results)
            ]
        return results


def forms(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


@pytest.mark.parametrize("kind", list(LAYERS))
def test_an_operator_gives_what_the_layer_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output, gradients of examples, and of the input, bit for bit; its shapes are as it says."""
    build, inputs, used = LAYERS[kind]
    torch.manual_seed(0)
    model = build()
    buffer = attach_gradient_buffer(model)

    def everything() -> list[Tensor]:
        leaf = inputs.clone().requires_grad_(inputs.is_floating_point())
        output = model(leaf)
        losses = output.square().flatten(1).sum(dim=1)
        rows = Materialize(buffer, backward, CPU).rows(losses)
        return [output, rows, *([] if leaf.grad is None else [leaf.grad])]

    expected = everything()
    called = Called()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with called:
        actual = everything()
    assert {f"dpacc::{name}{end}" for name in used for end in ("", "_backward")} == called.names
    assert len(actual) == 2 + inputs.is_floating_point()
    assert expected[1].norm(dim=1).min() > 0
    if kind == "LoRA in parts":  # a compiler adds scaled inputs' products, not scaled products
        torch.testing.assert_close(actual, expected)
    else:
        assert all(map(torch.equal, actual, expected))
