"""Random preference pairs for tiny models, and their gradients by a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dpacc.data.sequences import joined, parted
from dpacc.recipe.examples import pad_examples
from tests.tiny_models import VOCABULARY

PROMPT = 3
LENGTHS = [(4, 6), (2, 2), (9, 1), (5, 11), (1, 3), (7, 7)]
collate_pairs = partial(pad_examples, pad_token_id=0)


def pairs(lengths: Sequence[tuple[int, int]] = LENGTHS, *, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of answers of the given lengths to prompts of three words, with a made-up reference."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    made = []
    for both in lengths:
        prompt = words(PROMPT)
        answers = [words(count) for count in both]
        pair = joined(
            [
                {"input_ids": prompt + answer, "labels": [-100] * PROMPT + answer}
                for answer in answers
            ]
        )
        shift = torch.rand(2, generator=generator).tolist()
        pair["reference_chosen"] = -4.5 * both[0] + shift[0]
        pair["reference_rejected"] = -4.5 * both[1] + shift[1]
        made.append(pair)
    return made


def log_probabilities(model: nn.Module, pair: dict[str, Any]) -> torch.Tensor:
    """log p of both answers, [2], each by a forward of its own, from whole logits."""
    found = []
    for answer in parted(pair):
        ids, labels = torch.tensor([answer["input_ids"]]), torch.tensor(answer["labels"][1:])
        scores = F.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        learned = labels >= 0
        found.append(scores[learned].gather(1, labels[learned, None]).sum())
    return torch.stack(found)


def loop_over_pairs(
    model: nn.Module,
    data: Sequence[dict[str, Any]],
    loss: Callable[[torch.Tensor, dict[str, Any]], torch.Tensor],
) -> torch.Tensor:
    """Each pair's gradient, [pairs, width], by torch.autograd, one pair at a time.

    Args:
        model: not prepared.
        data: the pairs.
        loss: of the log-probabilities of both answers, [2], and the pair.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for pair in data:
        gradients = torch.autograd.grad(
            loss(log_probabilities(model, pair), pair), parameters, allow_unused=True
        )
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(parameters, gradients, strict=True)
                ]
            )
        )
    return torch.stack(rows)
