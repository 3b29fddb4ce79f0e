"""Trainable layers beside LoRA's: embeddings and normalisations, with per-example gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.layers.operators import layer_operator


class PerExampleEmbedding(nn.Embedding):
    """A lookup table that yields ∂ℓᵢ/∂E = Σₜ onehot(idᵢₜ)·gᵢₜᵀ for every example i.

    Each example's gradient is as large as the table: meant for few examples or small vocabularies.
    """

    gradient_buffer: GradientBuffer
    places: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the table, [examples, ..., embedding_dim].

        One input for all rows, as absolute positions are, is looked up for each of them.
        """
        rows_at_hand = self.gradient_buffer.rows_at_hand
        if input.shape[0] == 1 < rows_at_hand and torch.is_grad_enabled():
            input = input.expand(rows_at_hand, *input.shape[1:])
        return _per_example_embedding(input, self.weight, self.padding_idx, self.places)


def _look_up(input: Tensor, weight: Tensor, padding_index: int | None, places: Tensor) -> Tensor:
    return F.embedding(input, weight)


def _look_up_backward(
    gradient: Tensor,
    wanted: bool,
    input: Tensor,
    weight: Tensor,
    padding_index: int | None,
    places: Tensor,
) -> Tensor:
    buffer, (slot,) = GradientBuffer.told_by(places)
    assert slot is not None
    ids = buffer.by_example(input.unsqueeze(-1))
    tokens = buffer.by_example(gradient).float()
    block = tokens.new_zeros(ids.shape[0], *weight.shape)
    block.scatter_add_(1, ids.expand_as(tokens), tokens)
    if padding_index is not None:
        block[:, padding_index] = 0
    buffer.write(slot, block)
    return input.new_empty(0)


def _rows(input: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return weight.new_empty(*input.shape, weight.shape[1])


_per_example_embedding = layer_operator(
    name="per_example_embedding", forward=_look_up, backward=_look_up_backward, shapes=_rows
)


class PerExampleLayerNorm(nn.LayerNorm):
    """y = x̂·w + b with x̂ normalised over the last dimensions; yields Σₜ gᵢₜ·x̂ᵢₜ and Σₜ gᵢₜ."""

    gradient_buffer: GradientBuffer
    places: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """The normalised, scaled and shifted input."""
        normalised = F.layer_norm(input, self.normalized_shape, eps=self.eps)
        return _per_example_affine(normalised, self.weight, self.bias, self.places)


def _scale_and_shift(input: Tensor, weight: Tensor, bias: Tensor | None, places: Tensor) -> Tensor:
    scaled = input * weight.to(input.dtype)
    return scaled if bias is None else scaled + bias.to(input.dtype)


def _scale_and_shift_backward(
    gradient: Tensor,
    wanted: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Tensor,
) -> Tensor:
    buffer, (weight_slot, bias_slot) = GradientBuffer.told_by(places)
    if weight_slot is not None:
        products = buffer.by_example(gradient.float() * input.float())
        buffer.write(weight_slot, _sum_over_tokens(products, weight))
    if bias_slot is not None:
        tokens = buffer.by_example(gradient.float())
        buffer.write(bias_slot, _sum_over_tokens(tokens, weight))
    return gradient * weight.to(gradient.dtype) if wanted else input.new_empty(0)


_per_example_affine = layer_operator(
    name="per_example_affine",
    forward=_scale_and_shift,
    backward=_scale_and_shift_backward,
    shapes=lambda input, *_: torch.empty_like(input),
)


def _sum_over_tokens(values: Tensor, like: Tensor) -> Tensor:
    """Sum over every dimension between the first and those of `like`."""
    return values.reshape(values.shape[0], -1, *like.shape).sum(dim=1)
