"""The losses of Hugging Face's own heads, one an example: what a model's `loss` should have been.

A model's own loss is a mean over the batch or over all its tokens, so an example's share of it
depends on its neighbours. Each loss here divides by what its own example holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.data.supervision import IGNORED
from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.losses.token_losses import token_cross_entropy

LogitLosses = Callable[[Tensor, Tensor], Tensor]
"""From logits [examples, ...] and labels [examples, ...] to [examples] fp32."""

BatchLosses = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""From the model and one micro-batch to [examples] fp32."""


def next_token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each example's next tokens, [examples] fp32.

    Args:
        logits: [examples, tokens, vocabulary].
        labels: [examples, tokens], where the tokens themselves stand; −100 is not learned.

    >>> next_token_losses(torch.zeros(2, 3, 4), torch.tensor([[0, 1, 2], [0, -100, 2]])).tolist()
    [1.3862943649291992, 1.3862943649291992]
    """
    return token_losses(logits[:, :-1], labels[:, 1:])


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each example's labelled tokens, [examples] fp32.

    Args:
        logits: [examples, tokens, classes].
        labels: [examples, tokens]; −100 is not learned, and an example without any has loss 0.
    """
    learned = labels != IGNORED
    each = token_cross_entropy(logits[learned], labels[learned])
    dense = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    dense = dense.masked_scatter(learned, each)
    return dense.sum(dim=1) / learned.sum(dim=1).clamp(min=1)


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Each example's loss, [examples] fp32, as the labels ask: a class, several classes, a number.

    Args:
        logits: [examples, classes].
        labels: whole numbers [examples] for cross-entropy; floats of the logits' shape for several
            yes-or-no classes; floats [examples] with a single logit for squared error.
    """
    scores = logits.float()
    if not labels.is_floating_point() and scores.shape[-1] > 1:
        return F.cross_entropy(scores, labels.view(-1), reduction="none")
    if scores.shape[-1] == 1:
        return (scores.view(-1) - labels.view(-1).float()).square()
    each = F.binary_cross_entropy_with_logits(scores, labels.float(), reduction="none")
    return each.mean(dim=1)


_BY_HEAD: dict[str, LogitLosses] = {
    "ForCausalLM": next_token_losses,
    "ForMaskedLM": token_losses,
    "ForTokenClassification": token_losses,
    "ForSequenceClassification": sequence_losses,
}


def head_of(model: nn.Module) -> str:
    """Which of the known heads a Hugging Face model has, below PEFT's wrapping.

    Raises:
        ConfigurationError: none of them.
    """
    unwrap = getattr(model, "get_base_model", None)
    bare = model if unwrap is None else unwrap()
    names = [cls.__name__ for cls in type(bare).__mro__]
    for name in names:
        for head in _BY_HEAD:
            if name.endswith(head):
                return head
        if name.endswith("LMHeadModel"):
            return "ForCausalLM"
    raise ConfigurationError(
        f"there is no loss of one example alone for a {names[0]}; use a model with a head for "
        "causal or masked language modelling, or for sequence or token classification, or "
        "give losses=, which returns one loss per example"
    )


def logit_losses_of(model: nn.Module) -> LogitLosses:
    """The decoupled loss of a model's head, from its logits."""
    return _BY_HEAD[head_of(model)]


def batch_losses_of(model: nn.Module) -> BatchLosses:
    """The decoupled loss of a model's head, from a micro-batch with `labels`.

    A causal model's logits are made for supervised tokens only.
    """
    head = head_of(model)
    if head == "ForCausalLM":
        return causal_lm_losses
    from_logits = _BY_HEAD[head]

    def losses(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return from_logits(model(**inputs).logits, batch["labels"])

    return losses
