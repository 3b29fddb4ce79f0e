"""Held-out quality, as quickly and in as little memory as the training step allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from dpacc.data.sequences import padded_tokens
from dpacc.data.supervision import IGNORED, Example
from dpacc.errors import ConfigurationError
from dpacc.losses.decoupled_losses import BatchLosses
from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.batching import cut_into_micro_batches, starting_cost

Collate = Callable[[list[Example]], dict[str, Tensor]]


def held_out_perplexity(
    *,
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    max_tokens: int = 4096,
    accelerator: Accelerator | None = None,
    losses_of: BatchLosses = causal_lm_losses,
) -> float:
    """exp of the mean −log p(token) over every supervised token of `examples`.

    Each rank takes its share of micro-batches, and every rank returns the same number. The held-out
    examples are outside the privacy guarantee: nothing of theirs reaches the model.

    Args:
        model: a causal LM; its training or evaluation mode is left as it was.
        examples: what [`tokenize_examples`][dpacc.data.supervision.tokenize_examples] returns.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
        accelerator: shares the work over its ranks; without it this process does it all, where
            the model is.
        losses_of: what is learned; [`losses_for`][dpacc.recipe.objective.losses_for] gives it.

    Returns:
        A number of at least 1; infinite when the model gives some token no probability.

    Raises:
        ConfigurationError: no example has a token to predict.
    """
    loss, tokens = totals(
        partial(_loss_and_tokens, losses_of), model, examples, collate, max_tokens, accelerator
    )
    if tokens == 0:
        raise ConfigurationError("no held-out example has a token to predict: use longer ones")
    return _exp(loss / tokens)


def held_out_accuracy(
    *,
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    max_tokens: int = 4096,
    accelerator: Accelerator | None = None,
) -> float:
    """The share of labels that a classifier finds: of texts, or of labelled tokens.

    Args:
        model: a sequence or token classifier; its mode is left as it was.
        examples: with `labels`, a class or a list of them; −100 is not counted.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
        accelerator: shares the work over its ranks, as for `held_out_perplexity`.

    Returns:
        From 0 to 1.

    Raises:
        ConfigurationError: no example has a label.
    """
    right, labels = totals(_right_and_labels, model, examples, collate, max_tokens, accelerator)
    if labels == 0:
        raise ConfigurationError("no held-out example has a label to predict: use longer ones")
    return right / labels


def totals(
    count: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    max_tokens: int,
    accelerator: Accelerator | None,
    *,
    numbers: int = 2,
) -> list[float]:
    """What `count` says of each micro-batch, added up over all of them and all ranks.

    Args:
        count: [numbers] float64, of the model and a micro-batch.
        model: in evaluation mode meanwhile.
        examples: of all ranks.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
        accelerator: of the ranks, if there are several.
        numbers: how many numbers it says.
    """
    total = torch.zeros(numbers, dtype=torch.float64)
    with evaluating(model):
        for positions, batch in in_batches(model, examples, collate, max_tokens, accelerator):
            measured = count(model, batch)
            total += measured if positions else 0.0
    if accelerator is not None:
        # float32 crosses: some accelerators know no float64.
        total = total.float().to(accelerator.device)
        total = accelerator.reduce(total, reduction="sum").double().cpu()
    summed: list[float] = total.tolist()
    return summed


def in_batches(
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    max_tokens: int,
    accelerator: Accelerator | None = None,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """A rank's share of micro-batches, each with the places of its examples.

    A rank with none left is given one example again, and no place: a sharded model is gathered by
    all ranks.

    Args:
        model: reads them; where it is batches are sent, if no accelerator says otherwise.
        examples: of all ranks.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
        accelerator: of the ranks among which they are shared, if there are several.
    """
    ranks = accelerator.num_processes if accelerator else 1
    rank = accelerator.process_index if accelerator else 0
    device = accelerator.device if accelerator else next(model.parameters()).device
    shares = cut_into_micro_batches(
        lengths=[padded_tokens(example) for example in examples],
        ranks=ranks,
        max_tokens=max_tokens,
        start_cost=starting_cost(device.type),
    )
    for positions in shares[rank]:
        yield positions, send_to_device(collate([examples[i] for i in positions or [0]]), device)


def _right_and_labels(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """How many labels the model finds, and how many there are: [2] float64."""
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    counted = labels != IGNORED
    right = (model(**inputs).logits.argmax(dim=-1) == labels) & counted
    return torch.stack([right.sum(), counted.sum()]).cpu().double()


def _loss_and_tokens(losses_of: BatchLosses, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Summed −log p of the supervised tokens, and how many there are: [2] float64."""
    tokens = (batch["labels"][:, 1:] != IGNORED).sum(dim=1).cpu().double()
    losses = losses_of(model, batch).cpu().double()
    return torch.stack([losses @ tokens, tokens.sum()])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While it lasts, nothing drops out and nothing is differentiated."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def losses_of_texts(
    *,
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    max_tokens: int = 4096,
) -> npt.NDArray[np.float64]:
    """[m], each example's mean loss over its tokens, in evaluation mode.

    Losses of training examples are private: use this on canaries, or where nobody else looks.
    """
    losses = torch.zeros(len(examples), dtype=torch.float64)
    with evaluating(model):
        for positions, batch in in_batches(model, examples, collate, max_tokens):
            losses[positions] = causal_lm_losses(model, batch).double().cpu()
    found: npt.NDArray[np.float64] = losses.numpy()
    return found
