"""Opake's private step by its functional interface, with its patches: Triton kernels on a GPU.

Needs `opake==0.16.1`. No part of it that is imported here needs its accountant, which some patch
releases of Python cannot import.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100


class _LossOfOne(nn.Module):
    """The model's own loss of one example, as a function of parameters that torch.func replaces."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *one: Tensor) -> Tensor:
        names = ("input_ids", "attention_mask", "labels")
        batch = {name: each.unsqueeze(0) for name, each in zip(names, one, strict=True)}
        loss: Tensor = self.model(**batch, use_cache=False, loss_only=True).loss
        return loss


class OpakeStep:
    """Clipped sums of micro-batches, then noise and the optimizer: one logical step.

    Args:
        model: with adapters; it is patched in place.
        optimizer: of their parameters.
        expected: batch size of a logical step.
        max_grad_norm: C.
        noise_multiplier: σ.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        expected: int,
        max_grad_norm: float,
        noise_multiplier: float,
    ) -> None:
        import opake.random
        from opake.dpsgd.clipping import clipped_grad
        from opake.dpsgd.noise import gaussian_noise
        from opake.patches import apply_model_patches, apply_runtime_patches

        apply_runtime_patches()
        apply_model_patches(model)
        loss = _LossOfOne(model)
        self._learned = {name: p for name, p in loss.named_parameters() if p.requires_grad}
        self._optimizer = optimizer

        def of_one(parameters: dict[str, Tensor], *one: Tensor) -> Tensor:
            value: Tensor = torch.func.functional_call(loss, parameters, one)
            return value

        self._clipped, self._clip_state = clipped_grad(
            of_one,
            clipping_norm=max_grad_norm,
            batch_argnums=(1, 2, 3),
            normalize_by=float(expected),
        )
        self._noised, self._noise_state = gaussian_noise(
            noise_multiplier=noise_multiplier, key=opake.random.key(0)
        )
        self._sum: Any = None

    def backward(self, batch: dict[str, Tensor]) -> None:
        """Add the clipped gradients of a micro-batch: ids, mask and labels, one row an example."""
        ids = batch["input_ids"]
        mask = batch.get("attention_mask", torch.ones_like(ids))
        parameters = {name: p.detach() for name, p in self._learned.items()}
        found, self._clip_state = self._clipped(
            parameters, ids, mask, batch["labels"], state=self._clip_state
        )
        if self._sum is None:
            self._sum = found
        else:
            for name, total in self._sum.pytree.items():
                total += found.pytree[name]

    def update(self) -> None:
        """Add noise to the sum and let the optimizer have it."""
        released, self._noise_state = self._noised(self._sum, self._noise_state)
        for name, parameter in self._learned.items():
            parameter.grad = released.pytree[name].detach()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._sum = None
