"""How ranks act as one: agree, share, sum, and hand the private gradient to the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn

from dpacc.errors import ConfigurationError, DpaccError

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def require_replicated_model(accelerator: Accelerator) -> None:
    """Refuse a launch configuration under which the model is not whole on every rank."""
    if accelerator.distributed_type not in _REPLICATED:
        raise ConfigurationError(
            f"distributed_type={accelerator.distributed_type.value} is not supported by the "
            "engine; launch with distributed_type NO, MULTI_CPU or MULTI_GPU"
        )
    if accelerator.mixed_precision == "fp16":
        raise ConfigurationError(
            "mixed_precision=fp16 scales losses, which moves gradients out of their range; "
            "use bf16 or no mixed precision"
        )


def place_model(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """The model on this rank's device, with no wrapper that would reduce gradients itself."""
    placed: nn.Module = accelerator.prepare_model(model, evaluation_mode=True)
    return placed


def start_alike(parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the first rank's values: LoRA's random start differs from rank to rank."""
    for parameter in parameters:
        parameter.data.copy_(broadcast(parameter.data))


def share_from_main(value: Any) -> Any:
    """The main process's value, on every rank."""
    return broadcast_object_list([value])[0]


def require_agreement(facts: Mapping[str, object]) -> None:
    """Stop every rank when the ranks disagree on any of `facts`, naming the first that differs."""
    everywhere = gather_object([dict(facts)])
    for name in facts:
        answers = {str(rank_facts[name]) for rank_facts in everywhere}
        if len(answers) > 1:
            raise ConfigurationError(
                f"ranks disagree on {name}: {', '.join(sorted(answers))}; "
                "give every rank the same code, data and configuration"
            )


def sum_over_ranks(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on every rank, in one reduction."""
    total: Tensor = accelerator.reduce(tensor, reduction="sum")
    return total


def on_main_process(accelerator: Accelerator, action: Callable[[], None]) -> None:
    """Run `action` on the main process; every rank waits for it and fails with it."""
    failure: Exception | None = None
    message: str | None = None
    if accelerator.is_main_process:
        try:
            action()
        except Exception as error:
            failure, message = error, f"{type(error).__name__}: {error}"
    message = share_from_main(message)
    if failure is not None:
        raise failure
    if message is not None:
        raise DpaccError(f"the main process stopped: {message}")


def deliver(parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Cut the flat private gradient into the parameters' `.grad`."""
    pieces = torch.split(gradient, [p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)


def model_computes_in_half_precision(model: nn.Module) -> bool:
    """Whether the frozen base is stored in 16 bits or quantized."""
    return any(p.dtype != torch.float32 for p in model.parameters())
