"""Preference pairs around the step: their frozen reference, asked once, and held-out accuracy.

A pair's reference log-probabilities are a function of that pair and of frozen weights: two numbers
that are as private as the pair. They stand in the examples, in memory, and are written nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.losses.preferences import REFERENCE, WITHOUT_REFERENCE, pair_scores, reward_margins
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.evaluation import Collate, evaluating, in_batches, totals


def references_for(
    *,
    config: TrainingConfig,
    model: nn.Module,
    examples: list[Any],
    collate: Collate,
    accelerator: Accelerator | None = None,
) -> list[Any]:
    """Pairs with what the loss compares them with; the examples of other tasks as they are.

    Args:
        config: names task and loss, and how many tokens a micro-batch holds.
        model: as for `with_reference`, like all that follow.
        examples: of any task.
        collate: makes a batch of them.
        accelerator: shares the work over its ranks.
    """
    compares = config.task == "preference" and config.preference_loss not in WITHOUT_REFERENCE
    if not compares or not examples:
        return examples
    return with_reference(
        model=model,
        examples=examples,
        collate=collate,
        max_tokens=config.micro_batch_tokens,
        accelerator=accelerator,
    )


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
    found = torch.zeros(len(examples), len(REFERENCE), dtype=torch.float32)
    pairs = [*map(dict, examples)]
    with evaluating(model), adapters_off(model):
        for positions, batch in in_batches(model, pairs, collate, max_tokens, accelerator):
            scores, _ = pair_scores(model, batch)
            both = torch.stack([scores.chosen, scores.rejected], dim=1).float().cpu()
            found[positions] = both[: len(positions)]
    if accelerator is not None:
        # One rank has each pair's, and the others zeros.
        found = accelerator.reduce(found.to(accelerator.device), reduction="sum").cpu()
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
