"""Held-out perplexity, as quickly and in as little memory as the training step allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from dpacc.batching import cut_into_micro_batches, starting_cost
from dpacc.errors import ConfigurationError
from dpacc.losses import causal_lm_losses
from dpacc.supervision import IGNORED, Example


def held_out_perplexity(
    *,
    model: nn.Module,
    examples: Sequence[Example],
    collate: Callable[[list[Example]], dict[str, Tensor]],
    max_tokens: int = 4096,
    accelerator: Accelerator | None = None,
) -> float:
    """exp of the mean −log p(token) over every supervised token of `examples`.

    Each rank takes its share of micro-batches, and every rank returns the same number. The held-out
    examples are outside the privacy guarantee: nothing of theirs reaches the model.

    Args:
        model: a causal LM; its training or evaluation mode is left as it was.
        examples: what [`tokenize_examples`][dpacc.supervision.tokenize_examples] returns.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
        accelerator: shares the work over its ranks; without it this process does it all, where
            the model is.

    Returns:
        A number of at least 1; infinite when the model gives some token no probability.

    Raises:
        ConfigurationError: no example has a token to predict.
    """
    ranks = accelerator.num_processes if accelerator else 1
    rank = accelerator.process_index if accelerator else 0
    device = accelerator.device if accelerator else next(model.parameters()).device
    lengths = [len(example["input_ids"]) for example in examples]
    shares = cut_into_micro_batches(
        lengths=lengths,
        ranks=ranks,
        max_tokens=max_tokens,
        start_cost=starting_cost(device.type),
    )
    total = torch.zeros(2, dtype=torch.float64)
    with evaluating(model):
        for positions in shares[rank]:
            # A rank with none left reads one again, for a sharded model is gathered by all ranks.
            batch = send_to_device(collate([examples[i] for i in positions or [0]]), device)
            measured = _loss_and_tokens(model, batch)
            total += measured if positions else 0.0
    if accelerator is not None:
        # float32 crosses: some accelerators know no float64.
        total = accelerator.reduce(total.float().to(device), reduction="sum").double().cpu()
    loss, tokens = total.tolist()
    if tokens == 0:
        raise ConfigurationError("no held-out example has a token to predict: use longer ones")
    return _exp(loss / tokens)


def _loss_and_tokens(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Summed −log p of the supervised tokens, and how many there are: [2] float64."""
    tokens = (batch["labels"][:, 1:] != IGNORED).sum(dim=1).cpu().double()
    losses = causal_lm_losses(model, batch).cpu().double()
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
