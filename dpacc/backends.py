"""How a model is placed on its ranks, and how the private gradient reaches its optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from dpacc.errors import ConfigurationError

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Backend(Protocol):
    """What the engine asks of a way to train on several ranks."""

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Put model and optimizer where they train, with nothing that reduces gradients itself."""

    def backward(self, loss: Tensor, keep_graph: bool) -> None:
        """Run the backward of one micro-batch; parameters keep no gradient."""

    def update(self, parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
        """Step the optimizer with the flat private gradient."""


class Replicated:
    """The whole model on every rank, each with its own copy of the optimizer.

    Ranks that start alike and step with the same private gradient stay alike, so there is nothing
    for DistributedDataParallel to do, and it is not used.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Move the model to this rank's device; the optimizer follows its parameters."""
        self._optimizer = optimizer
        placed: nn.Module = self._accelerator.prepare_model(model, evaluation_mode=True)
        return placed, optimizer

    def backward(self, loss: Tensor, keep_graph: bool) -> None:
        """Autograd's backward."""
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]

    def update(self, parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
        """Cut the flat gradient into the parameters' `.grad`, step, and clear."""
        pieces = torch.split(gradient, [p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def backend_for(accelerator: Accelerator) -> Backend:
    """The backend of a launch configuration.

    Raises:
        ConfigurationError: the engine has none for it.
    """
    if accelerator.mixed_precision == "fp16":
        raise ConfigurationError(
            "mixed_precision=fp16 scales losses, which moves gradients out of their range; "
            "use bf16 or no mixed precision"
        )
    if accelerator.distributed_type in _REPLICATED:
        return Replicated(accelerator)
    raise ConfigurationError(
        f"distributed_type={accelerator.distributed_type.value} is not supported by the "
        "engine; launch with distributed_type NO, MULTI_CPU or MULTI_GPU"
    )
