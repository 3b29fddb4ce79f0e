"""What the engine asks of a way to train on several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Backend(Protocol):
    """Places a model, runs its backward, and hands the private gradient to its optimizer.

    Attributes:
        cuts_optimizer: whether each rank holds a part only of the optimizer's state, which it must
            keep in checkpoints and get back by itself.
        placement: who holds what of it; a checkpoint fits ranks that are placed alike.
    """

    cuts_optimizer: bool
    placement: str

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

    def whole_adapters(self, *, changed: bool = False) -> AbstractContextManager[None]:
        """While it lasts, adapters are whole on every rank; all ranks must enter it.

        Args:
            changed: whether every rank will give them new values, the same everywhere.
        """

    def optimizer_state(self) -> Any:
        """This rank's optimizer state, as nested dicts, lists, numbers and tensors."""

    def restore_optimizer(self, state: Any) -> None:
        """Take back what `optimizer_state` gave, after the adapters have their values.

        Raises:
            ConfigurationError: it is not that of these adapters.
        """
