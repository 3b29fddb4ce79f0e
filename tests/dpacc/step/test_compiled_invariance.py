"""What holds of any engine holds where it compiles: whose a contribution is, and how much.

The facts are other tests', whose engines all compile here, by code that torch makes once for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dpacc.layers import blocks
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.losses.per_example import causal_lm_losses
from dpacc.ranks.backends import Replicated
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import backward, in_int8, loop_gradients
from tests.dpacc.step import test_engine
from tests.dpacc.step.engine_runs import noiseless, received
from tests.dpacc.trainer import test_private_trainer
from tests.everything_compiled import everything_compiled
from tests.tiny_models import collate, examples, tiny_base, tiny_model, with_lora

LENGTHS = [7, 3, 12, 2, 9]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["blocks", "step"])
def compile(request: pytest.FixtureRequest) -> Any:
    """What is compiled."""
    return request.param


@pytest.fixture(scope="module", autouse=True)
def compiled(compile: Any) -> Iterator[list[nn.Module]]:
    """The models of all engines that were made."""
    from torch._dynamo.utils import counters

    with everything_compiled(compile) as models:
        yield models
        assert not counters["graph_break"]


FACTS: dict[str, Callable[..., None]] = {
    "clipped": test_engine.test_the_sum_is_that_of_clipped_gradients,
    **{
        f"neighbours, {odd}": partial(
            test_engine.test_one_example_changes_the_sum_by_at_most_c, odd, "flat"
        )
        for odd in ("usual", "NaN")
    },
    "a balance term": partial(
        test_engine.test_coupled_losses_are_refused_before_the_first_step,
        test_engine.small_balance_term,
    ),
}


@pytest.mark.parametrize("fact", list(FACTS))
def test_what_holds_of_any_engine_holds_of_compiled_ones(
    fact: str, compiled: list[nn.Module], ledgers: Iterator[Path]
) -> None:
    """How a batch is cut, who else is in it and what an example is like: as without a compiler."""
    before = len(compiled)
    FACTS[fact](ledgers=ledgers)
    assert len(compiled) > before


def test_the_trainer_compiles_and_computes_again(compiled: list[nn.Module], tmp_path: Path) -> None:
    """Activation checkpointing within transformers' Trainer: the open loop's gradients."""
    before = len(compiled)
    test_private_trainer.test_the_trainer_gets_the_engines_noised_gradients(
        tmp_path, cut=(4, 1), recomputes=True
    )
    assert len(compiled) == before + 2


def test_a_compiled_int8_base_gives_a_loops_gradients(tmp_path: Path) -> None:
    """Activations computed again, in two passes: Σ of the clipped gradients that autograd gives,
    one example at a time, without any compiler."""

    def model() -> nn.Module:
        base: Any = in_int8(tiny_base("llama"))
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
        return with_lora(base, "llama")

    data = examples(LENGTHS)
    rows = loop_gradients(model(), "llama", data)
    plan = noiseless(len(data), steps=1, max_grad_norm=float(rows.norm(dim=1).median()))
    expected = (rows * (plan.max_grad_norm / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)
    settings: dict[str, Any] = {"per_example_gradients": "ghost", "micro_batch_tokens": 30}
    actual = received(plan, data, tmp_path / "ledger.jsonl", model=model(), **settings)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_other_neighbours_leave_a_compiled_gradient_bit_for_bit(compile: Any) -> None:
    """Of the same lengths, in any order: whose they are is nothing to the code that is compiled."""
    model = tiny_model("llama")
    buffer = attach_gradient_buffer(model)
    blocks.compile_as_asked(compile, model=model, placement=Replicated.placement)

    def first(data: list[Any]) -> torch.Tensor:
        losses = causal_lm_losses(model, collate(data))
        return Materialize(buffer, backward, CPU).rows(losses)[0].clone()

    watched, *some = examples(LENGTHS)
    expected = first([watched, *some])
    assert expected.norm() > 0
    assert torch.equal(first([watched, *examples(LENGTHS[1:], seed=5)]), expected)
    assert torch.equal(first([watched, *reversed(some)]), expected)
