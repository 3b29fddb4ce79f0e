"""The whole model on every rank, each with its own copy of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dpacc.ranks.backends.held_parameters import admit_optimizer


class Replicated:
    """Ranks that start alike and step with the same private gradient stay alike.

    So there is nothing for DistributedDataParallel to do, and it is not used.
    """

    cuts_optimizer = False
    placement = "whole on every rank"

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Move the model to this rank's device; the optimizer follows its parameters."""
        self._optimizer = optimizer
        placed: nn.Module = self._accelerator.prepare_model(model, evaluation_mode=True)
        return placed, optimizer

    def backward(self, loss: Tensor, keep_graph: bool = False) -> None:
        """Autograd's backward."""
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]

    def update(self, parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
        """Cut the flat gradient into the parameters' `.grad`, step, and clear."""
        pieces = torch.split(gradient, [p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def require_same_optimizer(self, model: nn.Module) -> None:
        """The optimizer must hold the model's trainable parameters, and no others."""
        admit_optimizer(self._optimizer, model)

    def whole_adapters(self, *, changed: bool = False) -> AbstractContextManager[None]:
        """They always are."""
        return nullcontext()

    def optimizer_state(self) -> Any:
        """All of it, on every rank."""
        return self._optimizer.state_dict()

    def restore_optimizer(self, state: Any) -> None:
        """By torch's own rule."""
        self._optimizer.load_state_dict(state)
