"""Compiled blocks: one piece of code for all of them, and each example's gradient as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.blocks import compile_as_asked
from dpacc.layers.gradient_buffer import GradientBuffer, SquaredNorms
from dpacc.ranks.backends import Replicated
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import assert_same_gradients, backward, quantized

CPU, WHOLE = torch.device("cpu"), Replicated.placement


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.down(torch.relu(self.up(self.norm(states))))


class Stack(nn.Module):
    """Three blocks, whose activations are computed again in the backward on request."""

    def __init__(self, width: int = 64, *, again: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=3, get=lambda *_: None)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.again = again

    def forward(self, states: Tensor) -> Tensor:
        for block in self.blocks:
            states = checkpoint(block, states, use_reentrant=False) if self.again else block(states)
        return states


def adapted(model: nn.Module, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    settings = {"r": 2, "target_modules": ["up", "down"], "init_lora_weights": False}
    return get_peft_model(model.requires_grad_(False), LoraConfig(**settings | options))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Torch's, but for the last stage, which makes machine code; and what it counts."""
    with compiling(monkeypatch, "aot_eager") as counters:
        yield counters


@contextmanager
def compiling(monkeypatch: pytest.MonkeyPatch, backend: Any) -> Iterator[Any]:
    """While it lasts, torch compiles by `backend`, and counts what it does."""
    from torch._dynamo.utils import counters

    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    torch._dynamo.reset()
    counters.clear()
    stance = torch.compiler.set_stance(force_backend=backend)
    try:
        with torch._dynamo.config.patch(disable=False):
            yield counters
    finally:
        stance.__exit__(None, None, None)
        torch._dynamo.reset()


def losses_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).square().sum(dim=(1, 2))


def rows_of(model: nn.Module, buffer: GradientBuffer, inputs: Tensor) -> Tensor:
    return Materialize(buffer, backward, CPU).rows(losses_of(model, inputs)).clone()


@pytest.mark.parametrize("compile", ["blocks", "step"])
@pytest.mark.parametrize("kind", ["whole", "checkpointed", "NF4", "upper two"])
def test_compiled_blocks_write_the_same_gradients(kind: str, compile: Any, compiler: Any) -> None:
    """Of every example, in micro-batches of any shape, by one code without a break; twice."""
    torch.manual_seed(0)
    base: nn.Module = Stack(again=kind == "checkpointed")
    upper: dict[str, Any] = {"target_modules": r".*[12]\.(up|down)"} if kind == "upper two" else {}
    model = adapted(quantized(base) if kind == "NF4" else base, **upper)
    buffer = attach_gradient_buffer(model)
    names = [name for name, _ in model.named_parameters()]
    micro_batches = [torch.randn(rows, tokens, 64) for rows, tokens in ((3, 5), (2, 9), (4, 2))]
    expected = [rows_of(model, buffer, each) for each in micro_batches]
    compile_as_asked(compile, model=model, placement=WHOLE)
    for inputs, rows in zip(micro_batches, expected, strict=True):
        assert_same_gradients(rows_of(model, buffer, inputs), rows)
    first, second = squares_of_two_passes(model, buffer, micro_batches[0])
    assert torch.equal(first, second)
    assert_same_gradients(first.sum(dim=1, keepdim=True), expected[0].square().sum(1, keepdim=True))
    assert compiler["stats"]["unique_graphs"] == 1
    assert not compiler["graph_break"]
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.grad is None for p in model.parameters())


def squares_of_two_passes(
    model: nn.Module, buffer: GradientBuffer, inputs: Tensor
) -> tuple[Tensor, ...]:
    """‖gradient‖² of every example and slot, by two backwards over one graph."""
    losses, squares = losses_of(model, inputs), []
    for keep_graph in (True, False):
        sink = SquaredNorms(buffer.layout, units=len(inputs), device=CPU)
        with buffer.open(examples=len(inputs), sink=sink):
            backward(losses.sum(), keep_graph)
        squares.append(sink.squares)
    return tuple(squares)


@pytest.mark.parametrize("compile", ["blocks", "step"])
@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {}])
def test_dropout_is_not_compiled(options: dict[str, float], compile: Any) -> None:
    """Neither an adapter's nor a rate that a layer hands to a function."""
    model: Any = adapted(Stack(), **options)
    if not options:
        model.base_model.model.blocks[2].attention_dropout = 0.1
    with pytest.raises(ConfigurationError, match="set the rate to 0"):
        compile_as_asked(compile, model=model, placement=WHOLE)


def test_a_step_in_whose_blocks_nothing_is_trained_is_refused() -> None:
    """There is nothing to be faster at."""
    with pytest.raises(ConfigurationError, match="nothing in the blocks is trained"):
        compile_as_asked("step", model=Stack().requires_grad_(False), placement=WHOLE)


class Ended(Stack):
    """With a layer behind the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.end = nn.Linear(64, 64)


@pytest.mark.parametrize(
    ("compile", "placement", "message"),
    [
        ("all", WHOLE, "choose 'blocks', 'step' or 'none'"),
        ("step", WHOLE, r"end\.lora_A.* outside the blocks: set compile='blocks'"),
        ("blocks", "cut by ZeRO-3 over 2 ranks", "set compile='none'"),
        ("step", "cut by ZeRO-3 over 2 ranks", "set compile='none'"),
    ],
)
def test_what_cannot_be_compiled_is_refused(compile: Any, placement: str, message: str) -> None:
    """What is unknown, what a compiler might leave out, and a model that is cut over ranks."""
    model = adapted(Ended(), target_modules=["up", "end"])
    with pytest.raises(ConfigurationError, match=message):
        compile_as_asked(compile, model=model, placement=placement)
