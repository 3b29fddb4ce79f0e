"""What a reference would make of invented pairs, for the coupling probe.

Before training a model is its own reference, so that log π/π_ref is zero for every pair, and a loss
that takes its mean over a batch would look as if it read none. Invented pairs therefore differ from
what the model makes of them, each by a number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from dpacc.losses.preferences import REFERENCE, pair_scores
from dpacc.step.admission.collation import Collate

_FARTHEST = 10.0
"""By how much, at most, the log-probability of an invented answer exceeds its reference's."""


def is_referenced(example: Any) -> bool:
    """Whether an example is a pair that its reference was asked about."""
    return isinstance(example, Mapping) and all(name in example for name in REFERENCE)


@torch.no_grad()
def with_invented_references(
    examples: Sequence[Mapping[str, Any]], *, model: nn.Module, collate: Collate
) -> list[dict[str, Any]]:
    """The pairs, whose invented numbers in [0, 1] say how far below the model's a reference is.

    Args:
        examples: invented pairs.
        model: that will be trained.
        collate: makes a batch of them.
    """
    device = next(model.parameters()).device
    found = []
    for example in examples:
        scores, _ = pair_scores(model, send_to_device(collate([dict(example)]), device))
        shifts = [_FARTHEST * example[name] for name in REFERENCE]
        now = float(scores.chosen), float(scores.rejected)
        references = (each - shift for each, shift in zip(now, shifts, strict=True))
        found.append({**example, **dict(zip(REFERENCE, references, strict=True))})
    return found
