"""How often a model prefers the answers that people preferred, on pairs that nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.losses.preferences import pair_scores, reward_margins
from dpacc.recipe.evaluation import Collate, totals


@dataclass(frozen=True, kw_only=True)
class HeldOutPreferences:
    """What was measured.

    Attributes:
        accuracy: the share of pairs with a positive margin, those with none counting half, so that
            a model that is its own reference has ½.
        margin: the mean of `reward_margins`.
        pairs: how many there were, with a token in both answers.
    """

    accuracy: float
    margin: float
    pairs: int

    @property
    def error(self) -> float:
        """The accuracy's standard error, √(a(1 − a)/n)."""
        return float((self.accuracy * (1 - self.accuracy) / self.pairs) ** 0.5)


def held_out_preferences(
    *,
    model: nn.Module,
    examples: Sequence[dict[str, Any]],
    collate: Collate,
    beta: float,
    max_tokens: int = 4096,
    accelerator: Accelerator | None = None,
) -> HeldOutPreferences:
    """Accuracy and margin of a model's preferences on pairs that no guarantee covers.

    Args:
        model: a causal LM; its mode is left as it was.
        examples: pairs; with their reference where the loss has one.
        collate: makes a batch of them.
        beta: what margins are scaled by.
        max_tokens: padded tokens in one micro-batch.
        accelerator: shares the work over its ranks, which all return the same.

    Raises:
        ConfigurationError: no pair has a token in both answers.
    """
    count = partial(_wins_margins_and_pairs, beta)
    wins, margins, pairs = totals(
        count, model, examples, collate, max_tokens, accelerator, numbers=3
    )
    if pairs == 0:
        raise ConfigurationError("no held-out pair has a token in both answers: use longer ones")
    return HeldOutPreferences(accuracy=wins / pairs, margin=margins / pairs, pairs=int(pairs))


def _wins_margins_and_pairs(beta: float, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """How many pairs are won, what their margins add up to, and how many there are: [3] float64."""
    scores, learned = pair_scores(model, batch)
    margins = reward_margins(scores, beta=beta)[learned].double()
    wins = (margins > 0).double() + 0.5 * (margins == 0).double()
    return torch.stack([wins.sum(), margins.sum(), learned.sum()]).cpu()
