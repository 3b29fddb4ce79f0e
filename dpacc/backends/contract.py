"""What the engine asks of a way to train on several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn


class Backend(Protocol):
    """Places a model, runs its backward, and hands the private gradient to its optimizer.

    Attributes:
        resumable: whether each rank holds all of the adapters and of the optimizer's state, so
            that a checkpoint by the main process is whole.
    """

    resumable: bool

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Put model and optimizer where they train, with nothing that reduces gradients itself.

        Parameters keep their identity; their data may be cut over the ranks.
        """

    def backward(self, loss: Tensor, keep_graph: bool = False) -> None:
        """Run the backward of one micro-batch; parameters keep no gradient."""

    def update(self, parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
        """Step the optimizer with the flat private gradient, the same on every rank."""

    def require_same_optimizer(self, model: nn.Module) -> None:
        """Refuse an optimizer that no longer holds what it held after `place`."""

    def whole_adapters(self) -> AbstractContextManager[None]:
        """While it lasts, adapters are whole on every rank; all ranks must enter it."""
