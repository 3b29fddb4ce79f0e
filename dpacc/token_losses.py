"""Cross-entropy of tokens in little memory: fp32 logits of a whole micro-batch never exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_TOKENS_PER_PRODUCT = 256
_TOKENS_IN_CACHE = 8


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(logits)[target] for every token, [n] fp32, from [n, vocabulary] logits.

    Equals `F.cross_entropy(logits.float(), targets, reduction="none")` without ever holding
    fp32 logits of more than a few tokens: one small scratch buffer stays in the cache.
    """
    losses: Tensor = _TokenCrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return losses


def projected_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """`token_cross_entropy(F.linear(states, weight, bias), targets)` for a frozen projection.

    Logits exist for a few hundred tokens at a time. The gradient of the states,
    ∂ℓ/∂h = (softmax − onehot)·W, is made while the logits are at hand and scaled in the backward,
    so nothing is computed twice.

    Args:
        states: [n, hidden].
        weight: [vocabulary, hidden], frozen.
        bias: [vocabulary], frozen, or none.
        targets: [n].
    """
    losses: Tensor = _ProjectedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, targets
    )
    return losses


class _TokenCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normalisers = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
        for rows, scratch in _chunks(logits):
            scratch.copy_(logits[rows])
            largest = scratch.amax(dim=1, keepdim=True)
            sums = scratch.sub_(largest).exp_().sum(dim=1)
            normalisers[rows] = sums.log_().add_(largest.squeeze(1))
        ctx.save_for_backward(logits, targets, normalisers)
        return normalisers - logits.gather(1, targets.unsqueeze(1)).squeeze(1).float()

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = output_gradients
        logits, targets, normalisers = ctx.saved_tensors
        result = torch.empty_like(logits)
        for rows, scratch in _chunks(logits):
            probabilities = scratch.copy_(logits[rows]).sub_(normalisers[rows, None]).exp_()
            one = torch.ones_like(probabilities[:, :1])
            probabilities.scatter_add_(1, targets[rows, None], -one)
            result[rows] = probabilities.mul_(gradient[rows, None])
        return result, None


class _ProjectedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        losses = torch.empty(len(targets), dtype=torch.float32, device=states.device)
        wanted = ctx.needs_input_grad[0]
        gradients = torch.empty_like(states) if wanted else None
        room = states.new_empty(min(len(targets), _TOKENS_PER_PRODUCT), len(weight))
        for start in range(0, len(targets), _TOKENS_PER_PRODUCT):
            rows = slice(start, start + _TOKENS_PER_PRODUCT)
            logits = torch.mm(states[rows], weight.t(), out=room[: len(targets[rows])])
            if bias is not None:
                logits += bias
            losses[rows] = _losses_in_place(logits, targets[rows], want_gradients=wanted)
            if gradients is not None:
                torch.mm(logits, weight, out=gradients[rows])
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        scales = output_gradients[0].unsqueeze(1)
        return (gradients * scales).to(gradients.dtype), None, None, None


def _losses_in_place(logits: Tensor, targets: Tensor, *, want_gradients: bool) -> Tensor:
    """The tokens' losses; on request `logits` becomes softmax(logits) − onehot(targets).

    log Σ exp(z) is max z − log max softmax(z), whose logarithm is never of a small number.
    """
    losses = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
    for rows, scratch in _chunks(logits):
        chosen = targets[rows, None]
        largest = logits[rows].amax(dim=1, keepdim=True).float()
        at_target = logits[rows].gather(1, chosen).float()
        torch.softmax(logits[rows], dim=1, dtype=torch.float32, out=scratch)
        normalisers = largest - scratch.amax(dim=1, keepdim=True).log()
        losses[rows] = (normalisers - at_target).squeeze(1)
        if want_gradients:
            logits[rows] = scratch.scatter_add_(1, chosen, scratch.new_full(chosen.shape, -1.0))
    return losses


def _chunks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows, each with the same fp32 scratch buffer of their shape."""
    tokens, vocabulary = logits.shape
    most = _TOKENS_IN_CACHE if logits.device.type == "cpu" else _TOKENS_PER_PRODUCT
    scratch = logits.new_empty(min(tokens, most), vocabulary, dtype=torch.float32)
    for start in range(0, tokens, most):
        stop = min(start + most, tokens)
        yield slice(start, stop), scratch[: stop - start]
