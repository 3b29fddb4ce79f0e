"""How good a model is on held-out records, and how far that may be off by their choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpacc.federated.clients.local_training import local_accelerator
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.losses.per_example import summed_losses
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.evaluation import evaluating, in_batches
from dpacc.recipe.examples import load_training_examples, pad_examples
from dpacc.recipe.predictions import predict_classes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was measured.

    Args:
        metric: "balanced accuracy" or "perplexity".
        value: of the model.
        error: its standard error, for the held-out records are a sample.
    """

    metric: str
    value: float
    error: float


class HeldOutQuality:
    """Measures models of one base on the same held-out records.

    Args:
        model: the server's, with its adapter.
        tokenizer: the base's.
        config: the task, with the held-out records as its data.
        public: activations of the base that are known; see `FrozenActivations`.
        folder: where there is room for those of the held-out records.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainingConfig,
        public: dict[str, Tensor],
        folder: Path,
    ) -> None:
        self._classifies = config.task != "causal-lm"
        self._frozen = FrozenActivations(
            model=model,
            examples=load_training_examples(config=config, tokenizer=tokenizer),
            collate=partial(pad_examples, pad_token_id=int(tokenizer.pad_token_id)),
            accelerator=local_accelerator(),
            folder=folder,
            public=public,
        )

    def __call__(self, model: nn.Module) -> Quality:
        """Balanced accuracy of a classifier, perplexity of a language model."""
        examples, collate = self._frozen.examples, self._frozen.collate
        if self._classifies:
            guesses, truths = predict_classes(model=model, examples=examples, collate=collate)
            return found_shares(guesses, truths)
        sums, counts = _losses(model, examples, collate)
        return perplexity(sums, counts)

    def close(self) -> None:
        """Give up the activations' file."""
        self._frozen.close()


def found_shares(guesses: Sequence[int], truths: Sequence[int]) -> Quality:
    """The share p of each of K classes that is found, averaged; its error √(Σ p(1 − p)/n) / K.

    >>> found_shares([1, 1, 1, 0], [1, 1, 0, 0]).value
    0.75
    """
    shares, variance = [], 0.0
    for each in sorted(set(truths)):
        hits = [g == each for g, truth in zip(guesses, truths, strict=True) if truth == each]
        shares.append(sum(hits) / len(hits))
        variance += shares[-1] * (1 - shares[-1]) / len(hits)
    classes = len(shares)
    return Quality(
        metric="balanced accuracy",
        value=sum(shares) / classes,
        error=math.sqrt(variance) / classes,
    )


def perplexity(sums: Sequence[float], counts: Sequence[int]) -> Quality:
    """exp of the mean −log p of a token; its error by the spread of whole texts about that mean.

    Args:
        sums: −log p of each text's tokens, added up.
        counts: of its tokens.

    >>> found = perplexity([2.0, 2.0], [2, 2])
    >>> round(found.value, 3), found.error
    (2.718, 0.0)
    """
    tokens = sum(counts)
    mean = sum(sums) / tokens
    apart = sum((s - mean * n) ** 2 for s, n in zip(sums, counts, strict=True))
    value = math.exp(mean)
    return Quality(metric="perplexity", value=value, error=value * math.sqrt(apart) / tokens)


def _losses(
    model: nn.Module, examples: Sequence[Mapping[str, Any]], collate: Any
) -> tuple[list[float], list[int]]:
    sums, counts = torch.zeros(len(examples)), torch.zeros(len(examples), dtype=torch.long)
    with evaluating(model):
        for places, batch in in_batches(model, examples, collate, _AT_ONCE):  # type: ignore[arg-type]
            of_rows, tokens = summed_losses(model, batch)
            sums[places], counts[places] = of_rows.float().cpu(), tokens.cpu()
    return sums.tolist(), counts.tolist()
