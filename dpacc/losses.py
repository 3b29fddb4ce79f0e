"""Per-example losses: one number per example, owing nothing to its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.supervision import IGNORED

_TOKENS_PER_CHUNK = 32


def causal_lm_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean next-token cross-entropy of each example over its own supervised tokens.

    ℓᵢ = −(1/nᵢ) Σₜ log p(labelᵢ,ₜ₊₁ | inputᵢ,≤ₜ), where nᵢ counts example i's labels that are
    not −100; an example without any has loss 0. Logits are computed at supervised positions
    only, so padding and prompts cost no vocabulary-wide arithmetic.

    Args:
        model: a Hugging Face causal LM, plain or wrapped by PEFT.
        batch: `input_ids`, `attention_mask` and `labels`, each [examples, tokens].

    Returns:
        [examples] fp32.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    targets = _next_token_targets(batch["labels"])
    supervised = targets != IGNORED
    logits = _logits_at(model, inputs, supervised)
    token_losses = token_cross_entropy(logits, targets[supervised])
    dense = torch.zeros(targets.shape, dtype=torch.float32, device=logits.device)
    dense = dense.masked_scatter(supervised, token_losses)
    return dense.sum(dim=1) / supervised.sum(dim=1).clamp(min=1)


def classification_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of each example's class, [examples] fp32; `batch["labels"]` is [examples]."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    return F.cross_entropy(logits.float(), batch["labels"], reduction="none")


def _next_token_targets(labels: Tensor) -> Tensor:
    """labels shifted left by one: what each position should predict; the last predicts nothing."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def _logits_at(model: nn.Module, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """Logits [n, vocabulary] at the n true `positions` [examples, tokens].

    A frozen output head is given only the chosen hidden states, so whatever the model does to its
    logits afterwards (scaling, soft-capping) still applies. A trained one must see which example
    each state belongs to, so it is given them all.
    """
    head = _output_head(model)
    if any(p.requires_grad for p in head.parameters()):
        every: Tensor = model(**inputs, use_cache=False).logits
        return every[positions]

    def keep_chosen(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
        return (arguments[0][positions].unsqueeze(0),)

    hook = head.register_forward_pre_hook(keep_chosen)
    try:
        logits: Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits.squeeze(0)


def _output_head(model: nn.Module) -> nn.Module:
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    if head is None:
        raise TypeError(
            f"{type(model).__name__} has no output embeddings; causal_lm_losses needs a causal LM"
        )
    return head  # type: ignore[no-any-return]


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(logits)[target] for every token, [n] fp32, from [n, vocabulary] logits.

    Equals `F.cross_entropy(logits.float(), targets, reduction="none")` without ever holding
    fp32 logits of more than a few tokens: one small scratch buffer stays in the cache.
    """
    losses: Tensor = _TokenCrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
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


def _chunks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows, each with the same fp32 scratch buffer of their shape."""
    tokens, vocabulary = logits.shape
    scratch = logits.new_empty(min(tokens, _TOKENS_PER_CHUNK), vocabulary, dtype=torch.float32)
    for start in range(0, tokens, _TOKENS_PER_CHUNK):
        stop = min(start + _TOKENS_PER_CHUNK, tokens)
        yield slice(start, stop), scratch[: stop - start]
