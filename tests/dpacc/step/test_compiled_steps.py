"""Private steps of compiled models: the same sum, and a probe of what is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dpacc import causal_lm_losses
from dpacc.errors import PrivacyError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.blocks import compile_as_asked
from dpacc.ranks.backends import Replicated
from dpacc.recipe.examples import pad_examples
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import backward
from tests.dpacc.layers.test_blocks import compiling
from tests.dpacc.step.engine_runs import plan_for, prepared, taken
from tests.tiny_models import LLAMA_LIKE, examples, tiny_model, with_lora

LENGTHS = [7, 3, 12, 9, 9]
FEW = {"micro_batch_tokens": 30}


def model() -> torch.nn.Module:
    """A Llama of one block."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**LLAMA_LIKE | {"num_hidden_layers": 1}, head_dim=8))
    return with_lora(base, "llama", targets=["q_proj", "down_proj"])


def sum_of_a_step(ledger: Path, compile: str) -> Tensor:
    """What reaches the optimizer."""
    plan = plan_for(len(LENGTHS), steps=1)
    engine, prepared_model, optimizer = prepared(
        plan, ledger, model=model(), compile=compile, **FEW
    )
    taken(engine, prepared_model, examples(LENGTHS))
    return optimizer.received[0]


@pytest.mark.parametrize("compile", ["blocks", "step"])
def test_a_step_of_compiled_code_is_the_same(
    compile: str, ledgers: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probe, padding, several micro-batches: it is three pieces of code, and no break."""
    expected = sum_of_a_step(next(ledgers), "none")
    with compiling(monkeypatch, "eager") as counters:
        actual = sum_of_a_step(next(ledgers), compile)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)
    # Of one example; of several; of several of the same length, which need no mask.
    assert 0 < counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]


def mixing(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
    """A compiler whose code moves each example a little towards those beside it."""

    def run(*arguments: Any) -> Any:
        states, *others = graph(*arguments)
        return [states + 0.01 * (states.mean(dim=0, keepdim=True) - states), *others]

    return run


def losing(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
    """A compiler whose code computes something else."""

    def run(*arguments: Any) -> Any:
        states, *others = graph(*arguments)
        return [states + 0.01 * states.roll(1, dims=-1), *others]

    return run


@pytest.mark.parametrize("compile", ["blocks", "step"])
@pytest.mark.parametrize(
    ("backend", "message"),
    [(mixing, "with the examples beside it"), (losing, "once blocks were compiled")],
    ids=["mixing", "losing"],
)
def test_a_compiler_that_changes_gradients_is_refused(
    backend: Any,
    message: str,
    compile: str,
    ledgers: Iterator[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The probe's gradients are those of the compiled code, and compared with uncompiled ones."""
    with compiling(monkeypatch, backend), pytest.raises(PrivacyError, match=message):
        sum_of_a_step(next(ledgers), compile)


@pytest.mark.parametrize("family", ["llama", "gptj", "opt"])
def test_a_family_is_one_piece_of_code(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With activations computed again, for which words ask for a gradient until then: no break."""
    network: Any = tiny_model(family)
    network.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    network.train()
    buffer = attach_gradient_buffer(network)
    batch = pad_examples(examples([9, 5]), pad_token_id=0)

    def rows() -> Tensor:
        losses = causal_lm_losses(network, batch)
        return Materialize(buffer, backward, torch.device("cpu")).rows(losses).clone()

    expected = rows()
    with compiling(monkeypatch, "eager") as counters:
        compile_as_asked("step", model=network, placement=Replicated.placement)
        actual = rows()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
