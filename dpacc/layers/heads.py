"""Trainable layers beside LoRA's: embeddings and normalisations, with per-example gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.layers.gradient_buffer import GradientBuffer


class PerExampleEmbedding(nn.Embedding):
    """A lookup table that yields ∂ℓᵢ/∂E = Σₜ onehot(idᵢₜ)·gᵢₜᵀ for every example i.

    Each example's gradient is as large as the table: meant for few examples or small vocabularies.
    """

    gradient_buffer: GradientBuffer

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the table, [examples, ..., embedding_dim].

        One input for all rows, as absolute positions are, is looked up for each of them.
        """
        rows_at_hand = self.gradient_buffer.rows_at_hand
        if input.shape[0] == 1 < rows_at_hand and torch.is_grad_enabled():
            input = input.expand(rows_at_hand, *input.shape[1:])
        rows: Tensor = _PerExampleEmbedding.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.padding_idx, self.gradient_buffer
        )
        return rows


class _PerExampleEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, padding_index: int | None, buffer: GradientBuffer
    ) -> Tensor:
        ctx.save_for_backward(input)
        ctx.buffer, ctx.parameter, ctx.shape = buffer, id(weight), weight.shape
        ctx.padding_index = padding_index
        return F.embedding(input, weight)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[None, Tensor | None, None, None]:
        (input,) = ctx.saved_tensors
        buffer: GradientBuffer = ctx.buffer
        ids = buffer.by_example(input.unsqueeze(-1))
        tokens = buffer.by_example(output_gradients[0]).float()
        block = tokens.new_zeros(ids.shape[0], *ctx.shape)
        block.scatter_add_(1, ids.expand_as(tokens), tokens)
        if ctx.padding_index is not None:
            block[:, ctx.padding_index] = 0
        buffer.write(buffer.layout.slots[ctx.parameter], block)
        return None, None, None, None


class PerExampleLayerNorm(nn.LayerNorm):
    """y = x̂·w + b with x̂ normalised over the last dimensions; yields Σₜ gᵢₜ·x̂ᵢₜ and Σₜ gᵢₜ."""

    gradient_buffer: GradientBuffer

    def forward(self, input: Tensor) -> Tensor:
        """The normalised, scaled and shifted input."""
        normalised = F.layer_norm(input, self.normalized_shape, eps=self.eps)
        output: Tensor = _PerExampleAffine.apply(  # type: ignore[no-untyped-call]
            normalised, self.weight, self.bias, self.gradient_buffer
        )
        return output


class _PerExampleAffine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, buffer: GradientBuffer
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.buffer, ctx.parameters = buffer, (id(weight), id(bias))
        scaled = input * weight.to(input.dtype)
        return scaled if bias is None else scaled + bias.to(input.dtype)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = output_gradients
        input, weight = ctx.saved_tensors
        buffer: GradientBuffer = ctx.buffer
        weight_slot, bias_slot = (buffer.layout.slots.get(key) for key in ctx.parameters)
        if weight_slot is not None:
            products = buffer.by_example(gradient.float() * input.float())
            buffer.write(weight_slot, _sum_over_tokens(products, weight))
        if bias_slot is not None:
            tokens = buffer.by_example(gradient.float())
            buffer.write(bias_slot, _sum_over_tokens(tokens, weight))
        return gradient * weight.to(gradient.dtype), None, None, None


def _sum_over_tokens(values: Tensor, like: Tensor) -> Tensor:
    """Sum over every dimension between the first and those of `like`."""
    return values.reshape(values.shape[0], -1, *like.shape).sum(dim=1)
