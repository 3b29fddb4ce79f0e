"""Losses of tokens as operators: what torch has, and whole in a compiler's eyes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dpacc.losses.token_losses import (
    _project_at_once,
    _project_in_tiles,
    projected_cross_entropy,
    token_cross_entropy,
)
from tests.dpacc.layers.test_blocks import compiling
from tests.dpacc.layers.test_operators import Called

_DRAWN = torch.Generator().manual_seed(0)
TARGETS = torch.tensor([0, 6, 3, 3, 1])
WEIGHT, BIAS = torch.randn(7, 4, generator=_DRAWN), torch.randn(7, generator=_DRAWN)
STATES, LOGITS = torch.randn(5, 4, generator=_DRAWN), torch.randn(5, 7, generator=_DRAWN)

Losses = Callable[[Tensor], Tensor]
LOSSES: dict[str, tuple[Tensor, Losses, Losses]] = {
    "token_cross_entropy": (
        LOGITS,
        lambda logits: token_cross_entropy(logits, TARGETS),
        lambda logits: F.cross_entropy(logits.float(), TARGETS, reduction="none"),
    ),
    "projected_cross_entropy": (
        STATES,
        lambda states: projected_cross_entropy(states, WEIGHT.to(states), BIAS.to(states), TARGETS),
        lambda states: F.cross_entropy(
            F.linear(states, WEIGHT.to(states), BIAS.to(states)).float(), TARGETS, reduction="none"
        ),
    ),
}


def with_gradients(losses: Losses, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's loss, and the gradient of 1·first + 2·second + …"""
    leaf = inputs.clone().requires_grad_()
    found = losses(leaf)
    (found * torch.arange(1, 1 + len(found))).sum().backward()
    assert leaf.grad is not None
    return found.detach(), leaf.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_and_gradients_are_torchs(name: str, dtype: torch.dtype) -> None:
    """In fp32 to its rounding, in 16 bits to theirs."""
    inputs, losses, usual = LOSSES[name]
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.05}
    actual, expected = (with_gradients(each, inputs.to(dtype)) for each in (losses, usual))
    torch.testing.assert_close(actual, expected, **close)


def test_the_chunked_cross_entropy_equals_the_plain_one() -> None:
    """Values and gradients agree with torch's over several chunks."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(700, 50, generator=generator, requires_grad=True)
    targets = torch.randint(50, (700,), generator=generator)
    weights = torch.rand(700, generator=generator)
    plain = F.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    chunked = token_cross_entropy(logits, targets)
    (actual,) = torch.autograd.grad((chunked * weights).sum(), logits)
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_projected_cross_entropy_is_as_exact_as_the_plain_one(
    dtype: torch.dtype, sure: bool, biased: bool
) -> None:
    """Values and gradients, over several tiles of tokens and of words, against those in fp64.

    Also where nearly all of a token's probability lies on its own word.
    """
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(700, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(4500, 16, generator=generator).to(dtype)
    bias = torch.randn(4500, generator=generator).to(dtype) if biased else None
    targets = torch.randint(4500, (700,), generator=generator)
    if sure:
        weight *= 10
        targets = F.linear(states, weight, bias).argmax(dim=1)

    def plain(kind: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = states.detach().to(kind).requires_grad_()
        logits = F.linear(leaf, weight.to(kind), None if bias is None else bias.to(kind))
        wide = logits.float() if kind == torch.bfloat16 else logits
        losses = F.cross_entropy(wide, targets, reduction="none")
        return losses, torch.autograd.grad(losses.sum(), leaf)[0]

    projected = projected_cross_entropy(states, weight, bias, targets)
    (gradient,) = torch.autograd.grad(projected.sum(), states)
    truth, rounded = plain(torch.float64), plain(dtype)
    one_rounding = 1.2e-7 * F.linear(states, weight, bias).abs().max()  # of the largest logit
    for actual, usual, exact in zip((projected, gradient), rounded, truth, strict=True):
        assert (actual - exact).abs().max() <= 2 * (usual - exact).abs().max() + one_rounding
    if sure:
        assert (truth[0] < 0.01).float().mean() > 0.2


@pytest.mark.parametrize("project", [_project_at_once, _project_in_tiles])
def test_autocast_does_not_reach_into_the_products(project: Callable[..., Tensor]) -> None:
    """Logits of an fp32 head stay fp32, losses and gradients alike, at once or in tiles."""
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 16, generator=generator) for n in (9, 50))
    targets, found = torch.randint(50, (9,), generator=generator), []
    for casts in (False, True):
        gradients = torch.empty_like(states)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=casts):
            losses = project(states, weight, None, targets, gradients)
        found.append((losses, gradients))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("name", list(LOSSES))
def test_an_operator_is_the_same_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tells the shapes of what it gives, also where nobody wants a gradient."""
    inputs, losses, _ = LOSSES[name]
    expected, called = with_gradients(losses, inputs), Called()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with called:
        actual = with_gradients(losses, inputs)
        alone = losses(inputs)
    assert called.names == {f"dpacc::{name}", f"dpacc::{name}_backward"}
    assert all(map(torch.equal, (*actual, alone), (*expected, expected[0])))


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_compiler_sees_it_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of tokens, in one piece of code and no break."""
    inputs, losses, _ = LOSSES[name]
    expected = with_gradients(losses, inputs)
    with compiling(monkeypatch, "aot_eager") as counters:
        whole: Any = torch.compile(losses, fullgraph=True, dynamic=True)
        actual = with_gradients(whole, inputs)
    assert all(map(torch.equal, actual, expected))
    assert counters["stats"]["unique_graphs"] == 1
