"""Per-example losses: one number per example, owing nothing to its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.data.supervision import IGNORED
from dpacc.losses.token_losses import projected_cross_entropy, token_cross_entropy
from dpacc.randomness.keyed_dropout import resting
from dpacc.ranks.collectives import is_undivided

_ADDS_NOTHING: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Models whose logits are seen to be exactly what their output head gives."""


def causal_lm_losses(
    model: nn.Module, batch: Mapping[str, Tensor], *, among: Tensor | None = None
) -> Tensor:
    """Mean next-token cross-entropy of each example over its own supervised tokens.

    ℓᵢ = −(1/nᵢ) Σₜ log p(labelᵢ,ₜ₊₁ | inputᵢ,≤ₜ), where nᵢ counts example i's labels that are
    not −100; an example without any has loss 0. Logits are computed at supervised positions
    only, so padding and prompts cost no vocabulary-wide arithmetic.

    Args:
        model: a Hugging Face causal LM, plain or wrapped by PEFT.
        batch: `input_ids`, `attention_mask` and `labels`, each [examples, tokens].
        among: the only tokens that may follow, [tokens], which is public. Labels are then places
            in it, p is a probability among these, and no other logit is computed or learned.

    Returns:
        [examples] fp32.
    """
    losses, tokens = summed_losses(model, batch, among=among)
    return losses / tokens.clamp(min=1)


def summed_losses(
    model: nn.Module, batch: Mapping[str, Tensor], *, among: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """−log p of each row's supervised tokens together, and how many they are: [rows] each.

    Arguments are those of `causal_lm_losses`.
    """
    inputs, targets = _without_the_last_token(batch)
    supervised = targets != IGNORED
    token_losses = _losses_at(model, inputs, supervised, targets[supervised], among)
    dense = torch.zeros(targets.shape, dtype=torch.float32, device=token_losses.device)
    dense = dense.masked_scatter(supervised, token_losses)
    return dense.sum(dim=1), supervised.sum(dim=1)


def classification_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of each example's class, [examples] fp32; `batch["labels"]` is [examples]."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    return F.cross_entropy(logits.float(), batch["labels"], reduction="none")


def _without_the_last_token(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs, and what each of their positions should predict, [examples, tokens].

    The last position predicts nothing, and in a causal LM no other sees it, so it is not computed,
    unless an input's shape leaves open which part of it is the last token's.
    """
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    wide = {name: value for name, value in inputs.items() if value.ndim > 1}
    by_token = all(value.shape[:2] == labels.shape for value in wide.values())
    if labels.shape[1] < 2 or not by_token:
        return inputs, F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return inputs | {name: value[:, :-1] for name, value in wide.items()}, labels[:, 1:]


def _losses_at(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    positions: Tensor,
    targets: Tensor,
    among: Tensor | None,
) -> Tensor:
    """Cross-entropy [n] at the n true `positions` [examples, tokens]."""
    head = _output_head(model)
    words = slice(None) if among is None else among.to(targets.device)
    if any(p.requires_grad for p in head.parameters()):
        # A trained head must see which example each state belongs to.
        logits: Tensor = model(**inputs, use_cache=False).logits
        return token_cross_entropy(_at(positions, logits, model)[:, words], targets)
    if isinstance(head, nn.Linear) and _is_whole(head) and _adds_nothing(model, head, inputs):
        every = states_before(head=head, model=model, inputs=inputs)
        states = _at(positions, every, model)
        bias = None if head.bias is None else head.bias[words]
        return projected_cross_entropy(states, head.weight[words], bias, targets)
    return token_cross_entropy(_logits_at(model, head, inputs, positions)[:, words], targets)


def _at(positions: Tensor, outputs: Tensor, model: nn.Module) -> Tensor:
    """What stands at the positions [examples, tokens], behind what prompt tuning puts in front."""
    config = getattr(model, "active_peft_config", None)
    ahead = outputs.shape[1] - positions.shape[1]
    if ahead and ahead == getattr(config, "num_virtual_tokens", None):
        outputs = outputs[:, ahead:]
    return outputs[positions]


def _logits_at(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], positions: Tensor
) -> Tensor:
    """Logits [n, vocabulary], with whatever the model does to them after its head."""

    def keep_chosen(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
        return (_at(positions, arguments[0], model).unsqueeze(0),)

    hook = head.register_forward_pre_hook(keep_chosen)
    try:
        logits: Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits.squeeze(0)


def states_before(*, head: nn.Module, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The hidden states that the model's output head would project, [examples, tokens, hidden].

    Args:
        head: sees none of their tokens, so that nothing is projected.
        model: whose it is.
        inputs: of the model.
    """
    seen: list[Tensor] = []

    def keep_all(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
        seen.append(arguments[0])
        # Not one token: the product with it copies the whole weight in 16 bits.
        return (arguments[0][:, :0].detach(),)

    hook = head.register_forward_pre_hook(keep_all)
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return seen[0]


def _adds_nothing(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> bool:
    """Whether the model returns its head's output as it is; seen once, on two tokens."""
    if model not in _ADDS_NOTHING:
        first = {name: value[:1, :2] for name, value in inputs.items()}
        _ADDS_NOTHING[model] = _logits_are_the_heads(model, head, first)
    return _ADDS_NOTHING[model]


@torch.no_grad()
def _logits_are_the_heads(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> bool:
    outputs: list[Tensor] = []
    hook = head.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        with resting():  # which keeps the micro-batch's own calls in their order
            logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return len(outputs) == 1 and torch.equal(logits, outputs[0])


def _is_whole(head: nn.Linear) -> bool:
    """Whether the head's weight lies here undivided: not quantized, sharded or partitioned."""
    weight = head.weight
    shape = (head.out_features, head.in_features)
    return type(head) is nn.Linear and is_undivided(weight) and tuple(weight.shape) == shape


def _output_head(model: nn.Module) -> nn.Module:
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    if head is None:
        raise TypeError(
            f"{type(model).__name__} has no output embeddings; causal_lm_losses needs a causal LM"
        )
    return head  # type: ignore[no-any-return]
