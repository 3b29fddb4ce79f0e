"""What the reference makes of each pair: the base with its adapters switched off, computed once.

A pair's reference log-probabilities are a function of that pair and of frozen weights: two numbers
that are as private as the pair. They stand in the examples, in memory, and are written nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.losses.preferences import REFERENCE, pair_scores
from dpacc.recipe.evaluation import Collate, evaluating, in_batches


def with_reference(
    *,
    model: nn.Module,
    examples: Sequence[Mapping[str, Any]],
    collate: Collate,
    max_tokens: int = 4096,
    accelerator: Accelerator | None = None,
) -> list[dict[str, Any]]:
    """The pairs, each with `reference_chosen` and `reference_rejected`: its log π_ref.

    Nothing drops out, and nothing is differentiated. Each rank computes its share, and all return
    the same.

    Args:
        model: whose adapters are switched off meanwhile; or a frozen one without any.
        examples: pairs, as [`tokenize_pairs`][dpacc.data.pairs.tokenize_pairs] returns them.
        collate: makes a batch of them.
        max_tokens: padded tokens in one micro-batch. In how many bits a number is right may depend
            on the pairs beside it; 1 computes each alone.
        accelerator: shares the work over its ranks.

    Raises:
        ConfigurationError: the model learns without adapters, so that nothing of it is the base.
    """
    ranks = accelerator.num_processes if accelerator else 1
    rank = accelerator.process_index if accelerator else 0
    device = accelerator.device if accelerator else next(model.parameters()).device
    found = torch.zeros(len(examples), len(REFERENCE), dtype=torch.float32)
    pairs = [*map(dict, examples)]
    batches = in_batches(pairs, collate, max_tokens, device, ranks=ranks, rank=rank)
    with evaluating(model), adapters_off(model):
        for positions, batch in batches:
            scores, _ = pair_scores(model, batch)
            both = torch.stack([scores.chosen, scores.rejected], dim=1).float().cpu()
            found[positions] = both[: len(positions)]
    if accelerator is not None:
        # One rank has each pair's, and the others zeros.
        found = accelerator.reduce(found.to(device), reduction="sum").cpu()
    return [
        {**example, **dict(zip(REFERENCE, numbers, strict=True))}
        for example, numbers in zip(pairs, found.tolist(), strict=True)
    ]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """While it lasts, a PEFT model is its base; a model that does not learn is that anyway.

    Raises:
        ConfigurationError: the model learns without adapters.
    """
    peft_model: Any = next((m for m in model.modules() if hasattr(m, "disable_adapter")), None)
    if peft_model is not None:
        with peft_model.disable_adapter():
            yield
        return
    if any(p.requires_grad for p in model.parameters()):
        raise ConfigurationError(
            "the reference is the base with its adapters switched off, and this model learns "
            "without adapters: add them with peft.get_peft_model, or give with_reference a frozen "
            "copy of the model that training starts from"
        )
    yield
