"""Models in which one example moves its neighbours' gradients: how far, and their refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    ConvBertConfig,
)

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import classification_losses
from tests.dpacc.step.admission.coupled import farthest, train
from tests.tiny_models import (
    VOCABULARY,
    collate,
    examples,
    tiny_base,
    tiny_model,
    with_lora,
)


def convolutional_model(dtype: torch.dtype) -> nn.Module:
    """A stock classifier with convolutions over tokens, which read beyond an example's end."""
    torch.manual_seed(0)
    config = ConvBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        embedding_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.15,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    base = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).to(dtype)
    model = with_lora(base, "bert")
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return model


def with_class(lengths: Sequence[int], seed: int = 0) -> list[dict[str, Any]]:
    return examples(lengths, family="bert", seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_that_read_padding(dtype: torch.dtype, tmp_path: Path) -> None:
    """What they do to each short row of a micro-batch adds up; 16 bits do not hide it."""
    for each in (data := with_class([5] * 200)):
        each["labels"] %= 2
    (extra,) = with_class([13], seed=1)
    extra["labels"] %= 2
    case: dict[str, Any] = {"losses": classification_losses}
    assert farthest(convolutional_model(dtype), data, extra, **case) > 1.5
    with pytest.raises(PrivacyError, match=r"with its padding.*reads beyond the attention mask"):
        train(convolutional_model(dtype), data, tmp_path, **case)


def padded_on_the_left(batch: list[Any]) -> Any:
    rows = collate(batch)
    return {
        name: torch.stack(
            [
                row.roll(int((mask == 0).sum()))
                for row, mask in zip(value, rows["attention_mask"], strict=True)
            ]
        )
        for name, value in rows.items()
    }


def test_padding_on_the_left_is_named(tmp_path: Path) -> None:
    """Where positions are counted from the edge, they follow the longest row; the remedy works."""
    with pytest.raises(PrivacyError, match=r"padded on the left.*padding_side = 'right'"):
        train(tiny_model("gpt2"), examples([5] * 4), tmp_path, collate=padded_on_the_left)
    train(tiny_model("gpt2"), examples([5] * 4), tmp_path)


def test_a_padding_word_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    """A causal classifier reads the last word that is no padding; the remedy works."""

    def model(padding: int) -> nn.Module:
        torch.manual_seed(0)
        config = tiny_base("llama").config
        config.pad_token_id, config.num_labels = padding, 3
        base = AutoModelForSequenceClassification.from_config(config)
        return with_lora(base, "bert", targets=["q_proj", "v_proj"])

    data = with_class([5] * 4)
    with pytest.raises(PrivacyError, match=r"with token 0.*config\.pad_token_id = 0"):
        train(model(7), data, tmp_path, losses=classification_losses)
    train(model(0), data, tmp_path, losses=classification_losses)


class Standardised(nn.Module):
    """Standardises by the batch in training, and drops out beside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.drop = nn.Dropout(0.1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.inner(states)
        if self.training:
            states = (states - states.mean(dim=(0, 1))) / (states.std(dim=(0, 1)) + 1e-3)
        return self.drop(states)


class OneScale(nn.Linear):
    """A frozen layer whose input is rounded to 8 bits by one scale for the whole micro-batch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        scale = input.detach().abs().max() / 448
        rounded = (input.detach() / scale).to(torch.float8_e4m3fn).to(input.dtype) * scale
        return super().forward(input + (rounded - input).detach())


class RunningMaximum(nn.Module):
    """Keeps the largest number it saw in a buffer, which is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        self.largest = torch.maximum(self.largest, states.detach().abs().max())
        return states


def changed(change: Callable[[nn.Module], None]) -> nn.Module:
    base = tiny_base("llama").requires_grad_(False)
    change(base.model)
    return with_lora(base, "llama", targets=["q_proj", "v_proj"])


def standardise(model: Any) -> None:
    model.norm = Standardised(model.norm)


def one_scale(model: Any) -> None:
    for layer in model.layers:
        old = layer.mlp.down_proj
        layer.mlp.down_proj = OneScale(old.in_features, old.out_features, bias=False)
        layer.mlp.down_proj.weight = nn.Parameter(30 * old.weight, requires_grad=False)


def observe(model: Any) -> None:
    model.norm = nn.Sequential(model.norm, RunningMaximum())


def test_standardising_by_the_batch_beside_a_dropout(tmp_path: Path) -> None:
    """Modules stay in training mode while the probe looks."""
    (extra,) = examples([200], seed=3)
    assert farthest(changed(standardise), examples([5] * 20), extra) > 1.2
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(changed(standardise), examples([5] * 4), tmp_path)


def test_one_scale_for_all_activations_is_seen(tmp_path: Path) -> None:
    """Whoever converted the layer, other neighbours round an example otherwise."""
    data, extra = examples([5] * 200), examples([60], seed=3)[0]
    farthest(changed(one_scale), data, extra)
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(changed(one_scale), examples([5] * 4), tmp_path)


def test_a_buffer_that_changes_is_refused(tmp_path: Path) -> None:
    """An exact maximum of private activations would be saved with the adapter."""
    with pytest.raises(PrivacyError, match=r"norm\.1\.largest changed in training"):
        train(changed(observe), examples([5] * 4), tmp_path)
