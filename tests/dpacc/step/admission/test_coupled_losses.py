"""Losses through which one example moves its neighbours' gradients: how far, and their refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset, default_collate
from transformers import (
    default_data_collator,
)

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.step.admission.coupled import Losses, farthest, token_mean, train
from tests.tiny_models import (
    collate,
    examples,
    tiny_base,
    tiny_model,
    with_lora,
)


def over_mean_weight(model: nn.Module, batch: Any) -> torch.Tensor:
    rows = {name: value for name, value in batch.items() if name != "weight"}
    return causal_lm_losses(model, rows) * batch["weight"] / batch["weight"].mean()


def over_mean_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses * (losses / losses.mean()).detach()


def through_mean_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses + 1e-3 * losses.mean().square()


def padded_to(width: int, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of one length, each with padding of its own."""
    return [
        {
            "input_ids": each["input_ids"] + [0] * (width - len(each["input_ids"])),
            "labels": each["labels"] + [-100] * (width - len(each["labels"])),
            "attention_mask": [1] * len(each["labels"]) + [0] * (width - len(each["labels"])),
        }
        for each in examples(lengths)
    ]


def test_a_mean_over_tokens_of_rows_of_one_length(tmp_path: Path) -> None:
    """Padded beforehand, rows have one length and differ in how many tokens they learn."""
    row, extra = padded_to(60, [4, 60])
    data = [row] * 60
    case: dict[str, Any] = {"losses": token_mean, "collate": default_data_collator}
    assert farthest(tiny_model("llama"), data, extra, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)


def weighted(batch: list[Any]) -> Any:
    return collate(batch) | {"weight": torch.tensor([each["weight"] for each in batch])}


def test_losses_over_the_mean_weight_of_the_batch(tmp_path: Path) -> None:
    """A weight of one's own divided by the neighbours'."""
    data = [{**each, "weight": 0.2} for each in examples([5] * 20)]
    extra = {**examples([5], seed=3)[0], "weight": 20.0}
    case: dict[str, Any] = {"losses": over_mean_weight, "collate": weighted}
    assert farthest(tiny_model("llama"), data, extra, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("losses", [over_mean_loss, through_mean_loss])
def test_losses_over_the_mean_loss_of_the_batch(
    losses: Losses, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Invented texts differ in how hard they are, and no loss may reach through a neighbour."""
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(sharp_model(dtype), examples([5] * 4), tmp_path, losses=losses)


def sharp_model(dtype: torch.dtype) -> nn.Module:
    """A tiny model whose losses differ from text to text, as a trained one's do."""
    base = tiny_base("llama").requires_grad_(False)
    base.lm_head.weight.mul_(40.0)
    model = with_lora(base.to(dtype), "llama")
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return model


class Network(nn.Module):
    """A plain module, without a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layers(pictures)


def class_losses(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def several_losses(model: nn.Module, batch: Any) -> torch.Tensor:
    scores = model(batch["pixel_values"])
    return nn.functional.binary_cross_entropy_with_logits(
        scores, batch["labels"], reduction="none"
    ).mean(dim=1)


def test_plain_modules_learn_from_tuples_and_pictures(tmp_path: Path) -> None:
    """A TensorDataset of pictures needs no probe_examples; a mean over it is still refused."""
    data = TensorDataset(torch.randn(8, 3, 4, 4), torch.arange(8) % 3)
    case: dict[str, Any] = {"collate": default_collate}
    train(Network(), data, tmp_path, losses=class_losses, **case)
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(Network(), data, tmp_path, losses=lambda m, b: class_losses(m, b) / len(b[0]), **case)


def test_labels_that_are_several_numbers(tmp_path: Path) -> None:
    """Yes or no to each of several classes, as a list of floats beside a picture."""
    data = [{"pixel_values": torch.randn(3, 4, 4), "labels": [1.0, 0.0, 1.0]} for _ in range(8)]
    train(Network(), data, tmp_path, losses=several_losses, collate=default_data_collator)
