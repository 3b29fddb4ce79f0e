"""Ghost, materialize and a loop over examples are one and the same, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.plan import PrivacyPlan
from dpacc.recipe.models import add_lora
from dpacc.step.accumulation import ClippedSum
from dpacc.step.strategies import (
    Ghost,
    Materialize,
    Strategy,
    choose,
    most_rows_that_fit,
    repeatable,
)
from tests.dpacc.layers.test_adapters import backward, loop_gradients
from tests.dpacc.step.engine_runs import noiseless
from tests.tiny_models import (
    ATTENTION,
    CLASSIFIERS,
    CONFIGURATIONS,
    collate,
    examples,
    losses_of,
    set_upper_factors,
    tiny_base,
    tiny_model,
    with_lora,
)

CPU = torch.device("cpu")
RULES = ["flat", "automatic", "per-layer", "adaptive"]


def empty_sum(buffer: GradientBuffer, plan: PrivacyPlan) -> ClippedSum:
    bound = plan.max_grad_norm
    return ClippedSum(plan=plan, layout=buffer.layout, max_grad_norm=bound, device=CPU)


def sums(
    kind: type[Strategy], family: str, plan: PrivacyPlan, data: list[Any], owners: Any = None
) -> torch.Tensor:
    return sum_of(tiny_model(family), kind, family, plan, data, owners)


def sum_of(
    model: nn.Module,
    kind: type[Strategy],
    family: str,
    plan: PrivacyPlan,
    data: list[Any],
    owners: Any = None,
) -> torch.Tensor:
    """The clipped sum of one micro-batch."""
    buffer = attach_gradient_buffer(model)
    total = empty_sum(buffer, plan)
    kind(buffer, backward, CPU).add(losses_of(family)(model, collate(data)), owners, total)
    return total.total


@pytest.mark.parametrize("clipping", RULES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_ghost_equals_materialize(family: str, clipping: str) -> None:
    """Two passes that keep nothing add up to what one pass that keeps everything does."""
    data = examples([7, 3, 12, 1, 9], family=family)
    plan = noiseless(5, clipping=clipping, max_grad_norm=0.05)
    kept = sums(Materialize, family, plan, data)
    assert kept.norm() > 0
    torch.testing.assert_close(sums(Ghost, family, plan, data), kept, rtol=1e-5, atol=1e-8)


LINEAR_LAYERS = {
    "llama": (4, 7),
    "mistral": (4, 7),
    "qwen2": (4, 7),
    "gptj": (4, 6),
    "gpt2": (2, 4),
    "gpt_neox": (2, 4),
    "opt": (4, 6),
    "bert": (4, 6),
    "roberta": (4, 6),
}
"""Of one block: in its attention, and in all of it."""
BLOCKS = 2


@pytest.mark.parametrize("where", ["attention", "all-linear"])
@pytest.mark.parametrize("family", list(CONFIGURATIONS))
def test_every_family_sums_what_a_loop_clips(family: str, where: str) -> None:
    """Adapters on all the attention, and on every linear layer, by either strategy."""
    targets = ATTENTION[family] if where == "attention" else "all-linear"
    head = ["classifier"] if family in CLASSIFIERS else None

    def adapted() -> nn.Module:
        base = tiny_base(family)
        return with_lora(base, family, targets=targets, exclude_modules=head)

    in_block = LINEAR_LAYERS[family][where == "all-linear"]
    lower = [name for name, _ in adapted().named_parameters() if "lora_A" in name]
    in_blocks = [name for name in lower if any(part.isdigit() for part in name.split("."))]
    assert len(in_blocks) == BLOCKS * in_block
    assert len(lower) - len(in_blocks) == (family == "bert" and where == "all-linear")  # its pooler
    assert_sums_equal_the_loop(adapted, family)


@pytest.mark.parametrize("method", ["rslora", "ffa"])
def test_other_kinds_of_lora_sum_what_a_loop_clips(method: str) -> None:
    """A scale of α/√r, and a fixed A, by either strategy."""

    def adapted() -> nn.Module:
        base = tiny_base("llama").requires_grad_(False)
        model = add_lora(model=base, rank=4, alpha=8, method=method)  # type: ignore[arg-type]
        set_upper_factors(model)
        return model.train()

    assert_sums_equal_the_loop(adapted, "llama")


def assert_sums_equal_the_loop(adapted: Callable[[], nn.Module], family: str) -> None:
    data = examples([7, 3, 12, 2], family=family)
    rows = loop_gradients(adapted(), family, data)
    plan = noiseless(len(data), max_grad_norm=float(rows.norm(dim=1).median()))
    norms = rows.norm(dim=1, keepdim=True)
    expected = (rows * (plan.max_grad_norm / norms).clamp(max=1)).sum(dim=0)
    for kind in (Materialize, Ghost):
        total = sum_of(adapted(), kind, family, plan, data)
        assert (total - expected).norm() < 5e-6 * expected.norm()


@pytest.mark.parametrize("kind", [Materialize, Ghost])
def test_a_units_examples_are_averaged_and_then_clipped(kind: type[Strategy]) -> None:
    """Three units of 3, 1 and 2 examples: each unit's mean gradient is clipped, by a loop."""
    data, owners = examples([7, 3, 12, 1, 9, 4]), torch.tensor([0, 1, 0, 2, 0, 2])
    plan = noiseless(3, max_grad_norm=0.05)
    rows = loop_gradients(tiny_model("llama"), "llama", data)
    means = torch.stack([rows[owners == unit].mean(dim=0) for unit in range(3)])
    norms = means.norm(dim=1, keepdim=True)
    assert (norms > 0.05).any()
    expected = (means * (0.05 / norms).clamp(max=1)).sum(dim=0)
    total = sums(kind, "llama", plan, data, owners)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [Materialize, Ghost])
def test_a_non_finite_example_silences_its_unit_alone(kind: type[Strategy]) -> None:
    """NaN in one example empties its unit; the others add up as without it."""
    model = tiny_model("llama")
    buffer = attach_gradient_buffer(model)
    data = examples([5, 6, 7, 8])
    plan = noiseless(3, max_grad_norm=0.05)

    def total_of(poison: list[float], owners: list[int], chosen: slice) -> torch.Tensor:
        total = empty_sum(buffer, plan)
        losses = losses_of("llama")(model, collate(data[chosen])) * torch.tensor(poison)
        kind(buffer, backward, CPU).add(losses, torch.tensor(owners), total)
        return total.total

    poisoned = total_of([1, float("nan"), 1, 1], [0, 1, 1, 2], slice(4))
    healthy = total_of([1], [0], slice(0, 1)) + total_of([1], [0], slice(3, 4))
    torch.testing.assert_close(poisoned, healthy, rtol=1e-4, atol=1e-7)


def test_ghost_refuses_a_layer_that_is_used_twice() -> None:
    """The norm of a sum is not known from the norms of its parts; materialize is named."""
    layer = nn.Linear(4, 4)
    buffer = attach_gradient_buffer(layer)
    losses = layer(layer(torch.ones(3, 4))).sum(dim=1)
    with pytest.raises(PrivacyError, match="per_example_gradients='materialize'"):
        Ghost(buffer, backward, CPU).add(losses, None, empty_sum(buffer, noiseless(3)))


def test_ghost_refuses_passes_that_disagree() -> None:
    """A backward that gives larger gradients the second time would escape the clip: stop."""
    layer = nn.Linear(4, 4)
    buffer = attach_gradient_buffer(layer)
    calls = []

    def drifting(loss: torch.Tensor, keep_graph: bool) -> None:
        calls.append(loss)
        (loss * (1.0 + 0.01 * len(calls))).backward(retain_graph=keep_graph)

    losses = 100 * layer(torch.ones(3, 4)).sum(dim=1)
    with pytest.raises(PrivacyError, match="second backward gave other gradients"):
        Ghost(buffer, drifting, CPU).add(losses, None, empty_sum(buffer, noiseless(3)))


def test_auto_keeps_gradients_where_a_handful_fit() -> None:
    """What was asked for is done; auto goes by the memory that is free."""
    assert choose("ghost", rows_that_fit=10**9) == "ghost"
    assert choose("materialize", rows_that_fit=0) == "materialize"
    assert choose("auto", rows_that_fit=8) == "materialize"
    assert choose("auto", rows_that_fit=7) == "ghost"
    rows = most_rows_that_fit(width=1000, device=CPU)
    assert most_rows_that_fit(width=10**12, device=CPU) < 1 <= rows


def test_two_passes_on_a_gpu_are_asked_to_be_the_same() -> None:
    """What torch was told before is restored; on a processor it is not told anything."""
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_what_cannot_be_repeated_is_refused_with_the_remedy() -> None:
    """Torch's refusal becomes the engine's; another error stays what it is."""
    model = tiny_model("llama")
    buffer = attach_gradient_buffer(model)
    total = empty_sum(buffer, noiseless(3))
    refusals = {
        "foo does not have a deterministic implementation": PrivacyError,
        "out of order": RuntimeError,
    }
    for message, kind in refusals.items():

        def failing(loss: torch.Tensor, keep: bool, message: str = message) -> None:
            raise RuntimeError(message)

        with pytest.raises(kind, match=message) as told:
            Ghost(buffer, failing, CPU).add(torch.ones(3), None, total)
        assert type(told.value) is kind
